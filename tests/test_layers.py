"""The layout's rules, read from the imports of every file: lower layers only, one door for each third party."""

import ast
import subprocess
import sys
from pathlib import Path

import movies

ROOT = Path(movies.__file__).parent
# From DESIGN: a file imports from lower layers only; the packages of one layer never import each other.
LAYERS: list[set[str]] = [
    {"errors"},
    {"shapes"},
    {"geometry", "files"},
    {"alignment", "cameras", "gaussians", "video"},
    {"colmap", "camera_npz"},
    {"camera_files", "scene"},
    {"clip", "splats", "long_scene", "merging", "widening", "camera_refinement"},
    {"model", "rendering", "data", "losses", "perceptual", "metrics", "tracks"},
    {"objective", "motion", "drawing", "trajectories", "export", "clip_quality", "network_world"},
    {"long_paths"},
    {"novel_views", "consistency"},
    {"d4rt"},
    {"train", "reconstruct", "scene_editing"},
    {"outputs", "doctor", "viewer"},
    {"long_video"},
    {"jobs", "query_jobs"},
    {"long_jobs", "long_queries"},
    {"long_tracks"},
    {"tracking"},
    {"evaluate"},
    {"commands"},
    {"cli"},
    {"__main__"},
]
DOORS = {
    "gsplat": {"rendering/gsplat_backend.py"},
    "imageio": {"video.py"},
    "accelerate": {"train"},
    "deepspeed": {"train"},
    "numba": {"rendering"},
    "tyro": {"cli.py", "commands"},
    "PIL": {"video.py"},
    "viser": {"viewer/stage.py"},
}
BLOCKED = ["gsplat", "accelerate", "deepspeed", "imageio", "pydantic", "tyro", "tqdm", "numba", "scipy", "PIL"]


def level_of(part: str) -> int:
    return next(i for i, names in enumerate(LAYERS) if part in names)


def imports_of(path: Path) -> list[str]:
    """Dotted names of everything that a file imports, wherever in the file it stands."""
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: imports are absolute"
            names += (
                [f"{node.module}.{alias.name}" for alias in node.names] if node.module == "movies" else [node.module]
            )
    return names


def sources() -> list[Path]:
    return sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


def part_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def test_files_import_lower_layers_only():
    wrong = []
    for path in sources():
        own = part_of(path)
        for name in imports_of(path):
            parts = name.split(".")
            if parts[0] != "movies" or len(parts) < 2 or parts[1] in (own, "__version__"):
                continue
            if level_of(parts[1]) >= level_of(own):
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not wrong


def test_inference_never_imports_training_or_datasets():
    for path in sources():
        if part_of(path) in ("reconstruct", "motion", "scene", "trajectories", "export", "rendering", "model"):
            assert not [n for n in imports_of(path) if n.startswith(("movies.data", "movies.train"))], path


def test_third_parties_have_one_door():
    wrong = []
    for path in sources():
        relative = str(path.relative_to(ROOT))
        for name in imports_of(path):
            doors = DOORS.get(name.split(".")[0])
            if doors and not any(relative == door or relative.startswith(f"{door}/") for door in doors):
                wrong.append(f"{relative} imports {name}")
    assert not wrong


def test_public_names_import_with_torch_and_numpy_only():
    code = f"""
import sys
for name in {BLOCKED!r}:
    sys.modules[name] = None
import movies
for name in movies.__all__:
    getattr(movies, name)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_unknown_public_name_is_an_attribute_error():
    assert not hasattr(movies, "Nothing")


def test_files_and_functions_stay_readable():
    for path in sources():
        text = path.read_text()
        assert text.count("\n") <= 450, f"{path} is too long"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 80, f"{path}:{node.lineno} {node.name} is too long"
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print":
                assert part_of(path) in ("cli", "commands"), f"{path}:{node.lineno} prints in the library"
