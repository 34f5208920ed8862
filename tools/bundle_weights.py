"""Bundle the weights of a finished run: evaluate both networks, write them as float16 with recipe and figures.

    python tools/bundle_weights.py runs/tiny/04_dynamic_112 runs/tiny/06_cameras_112 --stages stages/tiny

What is written is what was evaluated: the figures are those of the weights after rounding to float16.
"""

import argparse
import json
from pathlib import Path

import torch

import movies
from movies import VGGT, MoVieS
from movies.evaluate.synthetic import Report, evaluate_models
from movies.model.weights import load_weights, save_weights

ASSETS = Path(movies.__file__).parent / "assets"
MAX_BYTES = 16_000_000  # of one file in the repository


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("movies", type=Path, help="folder of the stage that leaves the MoVieS")
    parser.add_argument("vggt", type=Path, help="folder of the stage that leaves the VGGT")
    parser.add_argument("--stages", type=Path, default=Path("stages/tiny"), help="the stage files, kept as the recipe")
    parser.add_argument("--notes", default="", help="what the stage files do not say of this run")
    parser.add_argument("--clips", type=int, default=32)
    parser.add_argument("--out", type=Path, default=Path("out/bundle"), help="folder for the report and pictures")
    given = parser.parse_args()

    networks = {
        "movies_tiny": load_weights(MoVieS, given.movies / "model.safetensors").half().float(),
        "vggt_tiny": load_weights(VGGT, given.vggt / "model.safetensors").half().float(),
    }
    report = evaluate_models(*networks.values(), given.clips, folder=given.out)
    report.save(given.out)
    for name, model in networks.items():
        path = ASSETS / f"{name}.safetensors"
        save_weights(model, path, torch.float16, describe(report, given.stages, given.notes))
        if path.stat().st_size > MAX_BYTES:
            raise SystemExit(f"error: {path} has {path.stat().st_size} bytes, at most {MAX_BYTES} may be bundled")
    print(report.markdown())


def describe(report: Report, stages: Path, notes: str) -> dict[str, str]:
    """Recipe and figures as metadata."""
    recipe = "\n".join(f"# {file.name}\n{file.read_text()}" for file in sorted(stages.glob("*.toml")))
    figures = {kind: report.mean(kind) for kind in ("dynamic", "static")}
    about = f"A demonstration, trained on synthetic worlds only. movies {movies.__version__}, torch {torch.__version__}"
    return {"about": about, "recipe": recipe, "figures": json.dumps(figures), "notes": notes}


if __name__ == "__main__":
    main()
