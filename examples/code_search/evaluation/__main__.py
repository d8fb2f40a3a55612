"""``python -m evaluation``: this repository's questions, the page's search beside keyword search.

It indexes what is committed, without `examples/`, which has the questions in it, through the
endpoint of ``CODE_SEARCH_ENDPOINT``. Both rank the same chunks; a file stands where its best chunk
does, among the first 30 chunks.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from code_search.endpoint import Endpoint
from code_search.errors import CodeSearchError
from code_search.index import Indexes
from code_search.indexing import index
from code_search.search import MAX_TOP, WORDS_WEIGHT, search
from code_search.settings import Settings

from evaluation.chunks import chunks_of
from evaluation.keywords import Keywords
from evaluation.metrics import files_of, mean, recall, reciprocal_rank

ROOT = Path(__file__).parents[3]
QUESTIONS = Path(__file__).with_name("questions.json")
K = 5


def main() -> int:
    """Print the measures of both; 1 with a sentence where that fails."""
    parser = argparse.ArgumentParser(prog="evaluation", description="Recall and reciprocal rank.")
    parser.add_argument("--each", action="store_true", help="print every question's place")
    parser.add_argument("--words-weight", type=float, default=WORDS_WEIGHT, help="0 to 1")
    options = parser.parse_args()
    questions = json.loads(QUESTIONS.read_text())
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder).resolve() / "tree"
        tree.mkdir()
        packed = ["git", "archive", "HEAD", "--", ".", ":(exclude)examples"]
        archive = subprocess.run(packed, cwd=ROOT, capture_output=True, check=True)
        subprocess.run(["tar", "-x"], cwd=tree, input=archive.stdout, check=True)
        try:
            settings = replace(Settings.from_environment(), qdrant="", data_dir=folder + "/data")
            asked = [str(one["question"]) for one in questions]
            rankings = asyncio.run(rank(tree, asked, settings, options.words_weight))
        except CodeSearchError as error:
            print(f"failed: {error}", file=sys.stderr)
            return 1
    wanted = [one["files"] for one in questions]
    if options.each:
        for number, one in enumerate(questions):
            places = [place(ranking[number], one["files"]) for ranking in rankings.values()]
            print(*places, f"{one['question']} ({', '.join(one['files'])})", sep="  ")
    print(f"{len(questions)} questions      recall@{K}   MRR")
    for name, ranking in rankings.items():
        pairs = list(zip(ranking, wanted, strict=True))
        found = mean([recall(files, right, K) for files, right in pairs])
        ranks = mean([reciprocal_rank(files, right) for files, right in pairs])
        print(f"{name:18}{found:8.3f}{ranks:9.3f}")
    return 0


async def rank(
    tree: Path, questions: list[str], settings: Settings, words_weight: float
) -> dict[str, list[list[str]]]:
    """Index a folder; gives for each way of searching and each question the files, best first."""
    async with Indexes(settings) as indexes, Endpoint(settings) as endpoint:
        async for now in index(str(tree), settings, endpoint, indexes):
            if now.done:
                print(f"{now.chunks:,} chunks of {now.files_total:,} files")
        page = []
        for question in questions:
            found = await search(
                *(indexes, endpoint, str(tree), question),
                top=MAX_TOP,
                words_weight=words_weight,
            )
            page.append(files_of(one.path for one in found))
    chunks = await chunks_of(tree, settings)
    keywords = Keywords([one.embedded for one in chunks])
    words = [
        files_of(chunks[at].path for at in keywords.search(question, MAX_TOP))
        for question in questions
    ]
    return {"the page": page, "BM25": words}


def place(files: list[str], right: list[str]) -> str:
    """Return where the first right file stands, as text; "-" for nowhere."""
    found = reciprocal_rank(files, right)
    return f"{round(1 / found) if found else '-':>3}"


if __name__ == "__main__":
    sys.exit(main())
