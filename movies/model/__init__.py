"""The networks: MoVieS (network.py) and VGGT (vggt.py); config.py has their sizes, weights.py their files."""
