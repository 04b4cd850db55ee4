#!/bin/sh
# The whole training pipeline: dataset, hyperparameter search, retrain (fit, evaluate, gate, publish, prune).
#
#   ./train_all_models.sh                                     from the archive, with the settings of .env
#   MINUTES=0 ./train_all_models.sh                           without the search
#   ./train_all_models.sh --events FILE --items FILE --no-lease    from files, without Redis; further options go to `retrain`
#
# Events come from the archive unless --events names a file. PYTHON names the interpreter, WORK the folder of what lies between the steps.
set -eu
cd "$(dirname "$0")"
WORK=${WORK:-data/training}
MINUTES=${MINUTES:-15}
if [ -z "${PYTHON:-}" ]; then
    if [ -x .venv/bin/python ]; then PYTHON=.venv/bin/python; else PYTHON=python3; fi
fi
mkdir -p "$WORK"

if [ "$MINUTES" != 0 ]; then
    # `dataset` knows --events alone; everything else is for `retrain`.
    events=
    previous=
    for argument in "$@"; do
        case "$argument" in --events=*) events=${argument#--events=} ;; esac
        if [ "$previous" = --events ]; then events=$argument; fi
        previous=$argument
    done
    if [ -n "$events" ]; then
        "$PYTHON" -m training dataset --output "$WORK/dataset" --events "$events"
    else
        "$PYTHON" -m training dataset --output "$WORK/dataset"
    fi
    "$PYTHON" -m training tune als --dataset "$WORK/dataset" --minutes "$MINUTES" --study "$WORK/tune.sqlite" --output "$WORK/hyperparameters.json"
    set -- "$@" --hyperparameters "$WORK/hyperparameters.json"
fi
exec "$PYTHON" -m training retrain "$@"
