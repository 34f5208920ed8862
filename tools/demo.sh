#!/usr/bin/env bash
# Sets everything up and runs the main job: a clip in; a scene, novel views and pictures out.
#   bash tools/demo.sh            a synthetic clip of its own, compared with the truth it knows
#   bash tools/demo.sh CLIP       your video
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh" "" # an argument of its own: without one it would see ours
# Threads of a waiting OpenMP team spin and starve their neighbours on small machines; passive ones sleep.
export OMP_WAIT_POLICY=PASSIVE
if [ $# -gt 0 ]; then
    exec movies reconstruct "$1" --out out/demo
fi
exec python tools/demo.py --out out/demo
