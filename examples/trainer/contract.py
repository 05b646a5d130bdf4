"""The container contract, as a trainer sees it: parameters and rows in, artifacts out.

    /content/params.json   spec.params: integers and strings
    /content/data          the Dataset: JSON lines with `prompt` and `completion`, read-only
    /content/model         the base Model, read-only
    /content/artifacts     what this run leaves behind; a run that is started again finds what it has left there
"""
import json
import os
import pathlib
import signal
import sys

# The first process of a container is not ended by a signal that it does not handle.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

CONTENT = pathlib.Path(os.environ.get("CONTENT_DIR", "/content"))
MODEL, ARTIFACTS = CONTENT / "model", CONTENT / "artifacts"


def fail(message):
    """Ends the run; the last line of the log becomes the Model's condition."""
    sys.exit(f"error: {message}")


def params(defaults):
    """spec.params over `defaults`, each as the type of its default; a number with a point is written as a string there."""
    try:
        given = json.loads((CONTENT / "params.json").read_text())
    except FileNotFoundError:
        given = {}
    unknown = sorted(set(given) - set(defaults))
    if unknown:
        fail(f"spec.params: {', '.join(unknown)} is not known; known are {', '.join(sorted(defaults))}")
    read = dict(defaults)
    for name, value in given.items():
        kind = type(defaults[name])
        try:
            read[name] = kind(value)
        except ValueError:
            fail(f"spec.params.{name}: {value!r} is no {kind.__name__}")
    return read


def rows():
    """Every (prompt, completion) of the Dataset, in the same order on every run."""
    found = []
    for path in sorted((CONTENT / "data").rglob("*.json*")):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                found.append((str(row["prompt"]), str(row["completion"])))
            except (ValueError, KeyError, TypeError) as error:
                fail(f"{path.name}, line {number} is no JSON object with `prompt` and `completion`: {error!r}")
    if not found:
        fail("the Dataset has no rows: /content/data needs JSON lines in *.json or *.jsonl")
    return found


def replace(path, write):
    """Writes a file so that it is there whole or not at all, whenever the pod is stopped."""
    partial = path.with_name(path.name + ".partial")
    write(partial)
    with open(partial, "rb") as file:
        os.fsync(file.fileno())
    os.replace(partial, path)
