#!/usr/bin/env python3
"""optuna_loop.py FOLDER TRIALS: Optuna's ask, three intermediate values, tell, on its two storages of one machine.

Prints one JSON object: trials a second by the clock and CPU microseconds per trial, of the SQLite storage (both commit to disk)
and of the journal file. One parameter per trial, a random sampler: as little as a search can ask for. One process: two of them on
one SQLite file wait for each other's lock.
"""
import json
import os
import sys
import time

import optuna

optuna.logging.set_verbosity(optuna.logging.ERROR)


def run(storage, trials):
    study = optuna.create_study(storage=storage, sampler=optuna.samplers.RandomSampler(seed=7))
    def one():
        trial = study.ask()
        number = trial.suggest_int("architecture", 0, 5_308_416)
        for epoch in (1, 2, 3):
            trial.report(0.25 + 0.125 * epoch, epoch)
        study.tell(trial, (number % 9973) / 9973)
    for _ in range(5):
        one()
    begin, cpu = time.perf_counter(), time.process_time()
    for _ in range(trials):
        one()
    wall, cpu = time.perf_counter() - begin, time.process_time() - cpu
    return {"trials_per_s": round(trials / wall, 2), "cpu_us_per_trial": round(cpu / trials * 1e6, 1)}


def main():
    folder, trials = sys.argv[1], int(sys.argv[2])
    result = {"version": optuna.__version__, "trials": trials}
    result["sqlite"] = run(optuna.storages.RDBStorage("sqlite:///" + os.path.join(folder, "optuna.db")), trials)
    journal = optuna.storages.JournalFileStorage(os.path.join(folder, "optuna.log"))
    result["journal"] = run(optuna.storages.JournalStorage(journal), trials)
    print(json.dumps(result))


main()
