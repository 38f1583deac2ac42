"""A worker of the benchmark for its tests: writes down each unit that it does."""

import pathlib
import sys
import tempfile
import time

from benchmarks.speaker import Speaker


def main(name, path, fails_after, sleep_s, says_folder=""):
    if says_folder:
        pathlib.Path(says_folder).write_text(tempfile.mkdtemp())
    speaker = Speaker("numpy", work=2.0, warmup=0 if fails_after == "once" else 2)
    done = 0
    while True:
        with pathlib.Path(path).open("a") as file:
            file.write(name)
        time.sleep(float(sleep_s))
        print("what a library prints is no answer")
        done += 1
        if str(done) == fails_after:
            raise RuntimeError("out of paper")
        speaker.tick()


if __name__ == "__main__":
    main(*sys.argv[1:])
