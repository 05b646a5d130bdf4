"""An importer in Python: instructions, as Alpaca and its like publish them, become rows of prompt and completion.

The host fetches the file, takes it apart (json, jsonl, csv, parquet; gz and zst undone) and writes what comes out.
This module plans which file, and maps its rows.
"""

import json

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.dataset_importing import (
    DatasetFacts,
    Decoding_Rows,
    Parsing,
    PlanPage,
    Shard,
    ShardReport,
)
from wit_world.imports import http
from wit_world.imports.files import File, HttpOrigin, Origin_Http
from wit_world.imports.types import (
    Failure_Invalid,
    Failure_NotFound,
    Failure_Unavailable,
    Failure_Unsupported,
    Problem,
)

READ = 256 * 1024
SCHEME = "alpaca://"
FILE = "instructions"
WITH_INPUT = "{instruction}\n\n{input}\n\nAnswer:"
WITHOUT_INPUT = "{instruction}\n\nAnswer:"


def url_of(request):
    """`alpaca://host/path` is `https://host/path`; a mirror may be named whole in the parameter `url`."""
    given = dict(request.params).get("url")
    url = json.loads(given) if given else None
    if url is None and (request.source or "").startswith(SCHEME):
        url = "https://" + request.source[len(SCHEME) :]
    if not isinstance(url, str) or "://" not in url:
        raise Err(Failure_Invalid([Problem("spec.source", "write alpaca://host/path/file.json")]))
    return url


def file_at(url, size=None):
    return File(FILE, size, None, Origin_Http(HttpOrigin(url, [], None, None)))


def look(url):
    """What the server says of the file: its version, and its size where it tells."""
    try:
        answer = http.send(http.Request(http.Method.HEAD, url, [("accept-encoding", "identity")], None, None, True))
    except Err as error:
        raise Err(Failure_Unavailable(f"asking for {url}: {error.value}")) from None
    if answer.status == 404:
        raise Err(Failure_NotFound(url))
    headers = dict(answer.headers)
    size = headers.get("content-length", "")
    version = headers.get("etag") or headers.get("last-modified") or size or "unknown"
    return version, int(size) if answer.status == 200 and size.isdigit() else None


def lines(reader):
    """The rows of an input. They come whole, each on a line."""
    rest = b""
    while block := reader.read(READ):
        *whole, rest = (rest + block).split(b"\n")
        yield from (line for line in whole if line)
    if rest:
        yield rest


def prompt_of(row):
    template = WITH_INPUT if row.get("input") else WITHOUT_INPUT
    return template.format(instruction=row["instruction"].strip(), input=(row.get("input") or "").strip())


class DatasetImporting(exports.DatasetImporting):
    def plan(self, request, cursor):
        url = url_of(request)
        version, size = look(url)
        parsing = Parsing("jsonl" if url.endswith(".jsonl") else "json", None)
        shard = Shard(
            name=FILE,
            inputs=[file_at(url, size)],
            decoding=Decoding_Rows(parsing),
            mapped=True,
            output="",
            split="train",
            context="{}",
            extensions=[],
        )
        facts = DatasetFacts(license=None, partial=None)
        return PlanPage(f"{url} {version}", [shard], facts, [], None, [])

    def refresh(self, request, path):
        return file_at(url_of(request))

    def transform(self, request, shard, inputs, outputs):
        count, skipped, batch = 0, 0, []
        with outputs.open("all.jsonl") as out:
            for reader in inputs:
                for line in lines(reader):
                    row = json.loads(line)
                    if not isinstance(row.get("instruction"), str) or not isinstance(row.get("output"), str):
                        skipped += 1
                        continue
                    mapped = {"prompt": prompt_of(row), "completion": " " + row["output"].strip()}
                    batch.append(json.dumps(mapped, ensure_ascii=False))
                    count += 1
                    if len(batch) == 1000:
                        out.write(("\n".join(batch) + "\n").encode())
                        batch.clear()
            if batch:
                out.write(("\n".join(batch) + "\n").encode())
        if not count:
            raise Err(Failure_Unsupported("no row has the columns instruction and output"))
        warnings = [f"{skipped} rows without instruction or output were left out"] if skipped else []
        return ShardReport(count, warnings, [])
