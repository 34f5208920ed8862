"""Package of `movies`; pyproject.toml holds build-system, ruff and pytest settings only."""

from pathlib import Path

from setuptools import find_packages, setup

CORE = [
    "torch>=2.7",
    "numpy>=1.26",
    "scipy>=1.11",
    "numba>=0.61",
    "safetensors>=0.5",
    "imageio[ffmpeg]>=2.36",
    "pillow>=10",
    "tqdm>=4.66",
    "tyro>=0.9",
    "pydantic>=2.7",
    "gsplat>=1.5.3",
]
VIEW = ["viser>=1.1"]
DATA = ["OpenEXR>=3.3", "h5py>=3.10", "av>=14"]  # raw formats of the public datasets
# accelerate's DeepSpeed path asks for the metadata of transformers
TRAIN = ["accelerate>=1.15", "deepspeed>=0.19", "transformers>=5", "tensorboard>=2.17"]
EXTRAS = {
    "train": TRAIN,
    "data": DATA,
    "view": VIEW,
    "hub": ["huggingface_hub>=1.0"],
    "evaluate": ["scikit-image>=0.25"],  # edges of the depth boundary error
    # playwright drives a browser through the exported page; plyfile reads exported files back
    "dev": [
        "pytest>=8",
        "pytest-timeout>=2.3",
        "ruff>=0.15",
        "scikit-image>=0.25",
        *DATA,
        *TRAIN,
        *VIEW,
        "playwright>=1.49",
        "plyfile>=1",
    ],
}

setup(
    name="movies",
    version="0.1.0",
    description="One monocular video to a 4D scene: feed-forward, motion-aware Gaussian splatting",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["movies", "movies.*"]),
    package_data={
        "movies": ["assets/*.safetensors", "export/viewer.*", "evaluate/*.toml", "evaluate/protocols/*.toml"]
    },
    install_requires=CORE,
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["movies = movies.cli:main"]},
)
