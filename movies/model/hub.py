"""Where weights lie: the bundled ones, a file, a folder, or a repository of the Hugging Face hub."""

from importlib.resources import files
from pathlib import Path

from movies.errors import InputError
from movies.model.weights_file import first_line

# The published repositories, and the file in each; any other repository holds model.safetensors.
PUBLISHED = {"chenguolin/MoVieS": "movies_ckpt.safetensors", "facebook/VGGT-1B": "model.safetensors"}
ORDINARY = ("model.safetensors", "movies_ckpt.safetensors", "model.pt")
SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")


def locate(network: str, name: str | Path) -> Path:
    """The file that `name` stands for: "tiny" (bundled), a file, a folder with one in it, or a hub id `owner/name`.

    Raises InputError, with the mend, where there is none.
    """
    path, bundled = Path(name), _bundled(network, str(name))
    if bundled.is_file() and not path.is_file():  # a folder that happens to be called tiny does not hide it
        return bundled
    if path.is_dir():
        return _in_folder(path, PUBLISHED.get(str(name)))
    if path.exists() or (path.suffix in SUFFIXES and "/" in str(name)):
        return path
    if str(name).count("/") == 1 and path.suffix == "":
        return Path(download(str(name)))
    if str(name) == "tiny":
        raise InputError(
            f"no weights of {network} are bundled: train some (`movies train`) and give their .safetensors"
        )
    ours = "`tiny`, " if _bundled(network, "tiny").is_file() else ""
    raise InputError(f"no weights named {str(name)!r}: give {ours}a .safetensors file, or a hub id `owner/name`")


def _bundled(network: str, name: str) -> Path:
    return Path(str(files("movies") / "assets" / f"{network.lower()}_{name}.safetensors"))


def _in_folder(folder: Path, file: str | None) -> Path:
    wanted = [folder / each for each in ((file,) if file else ORDINARY)]
    found = next((path for path in wanted if path.is_file()), None)
    if found is None:
        raise InputError(f"{folder}: the folder holds no {' or '.join(p.name for p in wanted)}; give the file itself")
    return found


def download(repository: str) -> str:
    """Fetch a repository's weights through the hub's own client and cache; raises InputError that says what to do."""
    file = PUBLISHED.get(repository, ORDINARY[0])
    mend = f"put its file {file} at {repository}/{file} here, or give the path of the file"
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        raise InputError(
            f"{repository}: hub ids need huggingface_hub; run `pip install movies[hub]`, or {mend}"
        ) from error
    try:
        return hf_hub_download(repository, file, etag_timeout=10)
    except Exception as error:  # the hub's client raises many kinds; all mean that there is no such file for us
        raise InputError(f"{repository}: cannot be fetched from the hub ({first_line(error)}); {mend}") from error
