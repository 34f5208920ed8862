"""Bundle a tiny D4RT as float16 with its recipe and figures, those of the weights after rounding.

python tools/bundle_d4rt.py runs/d4rt_tiny/02_published_56 --stages stages/d4rt_tiny

The file is there at once, its figures when they are known: `movies evaluate synthetic_cameras --model d4rt`.
"""

import argparse
import json
from pathlib import Path

import torch
from bundle_weights import ASSETS, MAX_BYTES

import movies
from movies.d4rt.network import D4RT
from movies.evaluate.methods import MethodSpec
from movies.evaluate.runner import evaluate
from movies.model.weights import save_weights


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of the stage that leaves the D4RT")
    parser.add_argument("--stages", type=Path, default=Path("stages/d4rt_tiny"), help="the stage files, kept as recipe")
    parser.add_argument("--notes", default="", help="what the stage files do not say of this run")
    given = parser.parse_args()

    model = D4RT.from_pretrained(given.run / "model.safetensors")
    recipe = "\n".join(f"# {file.name}\n{file.read_text()}" for file in sorted(given.stages.glob("*.toml")))
    about = f"A demonstration, trained on synthetic worlds only. movies {movies.__version__}, torch {torch.__version__}"
    path, told = ASSETS / "d4rt_tiny.safetensors", {"about": about, "recipe": recipe, "notes": given.notes}
    save_weights(model, path, torch.float16, told)
    if path.stat().st_size > MAX_BYTES:
        raise SystemExit(f"error: {path} has {path.stat().st_size} bytes, at most {MAX_BYTES} may be bundled")
    print(f"wrote {path}, {path.stat().st_size:,} bytes", flush=True)
    report = evaluate("synthetic_cameras", MethodSpec(weights=str(path), model="d4rt"))
    save_weights(model, path, torch.float16, told | {"figures": json.dumps(report.mean)})
    print(report.markdown())


if __name__ == "__main__":
    main()
