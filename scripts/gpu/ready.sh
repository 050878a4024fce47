# Prepare a new machine. Source this file in bash, in the root of the repository:   . scripts/gpu/ready.sh [PARTS]
# PARTS is the folder with the parts of pack.py (0, 1, …); default: ~/parts. A second call only sets the environment.
parts=${1:-$HOME/parts} kit=$HOME/kit started=$SECONDS
if [ ! -f "$kit/ready" ]; then
    (for part in $(ls "$parts" | sort -n); do cat "$parts/$part"; done) | tar x -C "$(dirname "$kit")" &&
        python3 -m pip install --quiet --no-index --no-deps --target "$kit/site" "$kit"/wheels/*.whl &&
        touch "$kit/ready" || return 1
fi
export GENREC_CACHE=$kit/cache PYTHONPATH=$kit/site:src HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
python3 -m genrec data get smollm2-135m && python3 -m genrec data get ml-100k || return 1
echo "ready after $((SECONDS - started)) s"
