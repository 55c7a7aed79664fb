"""Run folders in trackio, wandb and TensorBoard, in a way that no tracker can hurt a run.

The rows of a run go to its folder and nowhere else. For each tracker a process of its own reads them there as they
appear, a bounded number at a time, and hands them on. It can fail, hang, crash or be killed: the trainer does not wait
for it, shares no memory and no import with it, and starts it again later; it goes on where it was, since the folder
still holds everything. What is missing in the end is sent by `covent track`.

    watch    the trainer's side: start, look whether it still lives, start again, wait a little at the end
    child    the process: rows in, calls out, one deadline for each call
    unsent   which rows a tracker does not have yet
    metrics  a row as numbers with names
    kinds    the three trackers behind one interface
"""
