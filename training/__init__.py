"""Trains models: turns archived events into a published bundle. No code that serves imports it.

`job` runs a retrain and the worker; `data` reads events and builds the dataset; `als` and
`two_tower` fit the models; `blend` chooses the ensemble's weights; `evaluation` measures answers
and reports experiments; `tuning` searches hyperparameters; `report` writes the HTML page;
`__main__` and `model_app` declare the command line, `commands` and `model_commands` run it;
`progress` shows progress bars.

Start with `job.retrain`.
"""

import os

# OpenMP reads it when torch or implicit is loaded. By default idle threads wait in a loop, and keep
# a core from the thread they wait for when another process takes it: a fit then takes twice to ten
# times as long. On idle cores it takes as long as before.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
