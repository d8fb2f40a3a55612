"""Under load: another model and back. Hits are served throughout, and nothing is filed wrongly."""

import json
import shlex
import threading
import time
from collections import Counter

from host import Host, check
from scenario import main

KNOWN = "known to every model"
MODEL = "embedrack/all-minilm-l6-v2"
#: The same weights with another pooling: its vectors differ.
OTHER = "embedrack/all-minilm-l6-v2-cls"
#: Runs on the host: prints how far the endpoint's vectors lie from those of an instance asked
#: directly, what the endpoint said of its cache, and the instance's vector of the first text.
COMPARE = """\
import json, sys, urllib.request
def embed(port, texts):
    body = json.dumps({"inputs": texts}).encode()
    address = "http://127.0.0.1:%d/embed" % port
    request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as reply:
        return reply.headers["X-Cache"], json.load(reply)
texts, farthest, direct = json.loads(sys.argv[1]), 0.0, []
cache, ours = embed(8080, texts)
for start in range(0, len(texts), 32):
    direct += embed(8100, texts[start:start + 32])[1]
for one, other in zip(ours, direct):
    farthest = max(farthest, *(abs(a - b) for a, b in zip(one, other)))
print(json.dumps([farthest, cache, direct[0]]))
"""


class Sender:
    """Sends a known text and a new one, again and again, on a thread of its own."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.new: list[str] = []
        self.known: Counter[int] = Counter()
        self.missed: Counter[int] = Counter()

    def __enter__(self) -> "Sender":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(timeout=60)

    def _run(self) -> None:
        while not self._over.wait(0.1):
            text = f"sent at {time.time()}"
            self.known[self._host.embed(KNOWN)[0]] += 1
            status, _ = self._host.embed(text)
            self.missed[status] += 1
            if status == 200:
                self.new.append(text)


def run(host: Host) -> None:
    """Go to the other model and back, and hold what was cached against what each model says."""
    firsts = []
    with Sender(host) as sender:
        time.sleep(2)  # of requests with the first model
        for model in (OTHER, MODEL):
            play = host.deploy(tei_model_id=model)
            time.sleep(2)  # of requests with the new one
            texts = [KNOWN, *sender.new[-400:]]
            command = f"python3 -c {shlex.quote(COMPARE)} {shlex.quote(json.dumps(texts))}"
            farthest, cache, first = json.loads(host.sh(command))
            firsts.append(first)
            host.report(
                f"{model}: {play.seconds:.0f} s; {len(texts)} texts of both models' time, "
                f"{cache}, farthest from the model's own vectors {farthest:.1e}"
            )
            check(farthest < 1e-5, f"{model}: a cached vector is another model's ({farthest})")
    apart = max(abs(a - b) for a, b in zip(*firsts, strict=True))
    check(apart > 1e-3, f"the models do not differ ({apart}), so nothing was shown")
    host.report(f"known text: {dict(sender.known)}; new texts: {dict(sender.missed)}")
    check(set(sender.known) == {200}, f"a known text got {dict(sender.known)}")
    check(set(sender.missed) <= {200, 503}, f"new texts got {dict(sender.missed)}")


if __name__ == "__main__":
    main(run)
