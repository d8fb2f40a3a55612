# `make` alone lists the targets. Every recipe is plain POSIX sh. Variables given to make reach the
# programs by the environment, which is make's own doing, so that no shell reads what they hold.
.PHONY: help run example example-evaluation test bench bench-peers load-test clean lock \
        scenarios docs

PYTHON ?= python3

help:
	@echo 'make run     start the local stack: embedder, store and proxy; Ctrl-C stops it'
	@echo '             PORT=8080      where the proxy listens, on this machine only'
	@echo '             WORKERS=2      processes of the proxy'
	@echo '             DATA_DIR=      folder of the cache, in place of the one it names'
	@echo '             MODEL_DIR=     folder of another model, in place of the small one'
	@echo '             TEI_URL=       an embedding server of yours, in place of ours'
	@echo '             QDRANT_URL=    a Qdrant of yours, in place of ours'
	@echo 'make example code search as a page in the browser, over what make run serves; Ctrl-C stops it'
	@echo '             CODE_SEARCH_PORT=7860  where it listens; CODE_SEARCH_ENDPOINT= another endpoint'
	@echo 'make test    lint, format, types and tests'
	@echo 'make scenarios  the deployment on real systemd hosts: molecule test --all --report (root)'
	@echo 'make bench   figures of speed, side by side with nginx and the balancer (PARTS=hits cpu)'
	@echo "make bench-peers  the same requests to LiteLLM's proxy and to ours, side by side"
	@echo 'make load-test  put a load on an endpoint (ARGS="http://127.0.0.1:8080 -r 1000"; ARGS=-h)'
	@echo 'make clean   drop the cache that make run keeps (DATA_DIR= as there)'
	@echo 'make docs    write the generated pages anew'
	@echo 'make lock    write the lock files anew (UPGRADE=--upgrade for newer versions)'
	@echo 'PYTHON=python3.12 chooses another Python for any of them'

run:
	@$(PYTHON) scripts/bootstrap.py run
	@exec .venv/bin/python -m local_stack

example:
	@$(PYTHON) scripts/bootstrap.py example
	@cd examples/code_search && exec ../../.venv-example/bin/python -m code_search page

example-evaluation:
	@$(PYTHON) scripts/bootstrap.py example
	@cd examples/code_search && exec ../../.venv-example/bin/python -m evaluation $(EACH)

test:
	@$(PYTHON) scripts/bootstrap.py test clients example
	@exec .venv/bin/python scripts/check.py

bench:
	@$(PYTHON) scripts/bootstrap.py test
	@exec .venv/bin/python -m bench $(PARTS)

load-test:
	@$(PYTHON) scripts/bootstrap.py run
	@exec .venv/bin/embedrack load-test $(ARGS)

bench-peers:
	@$(PYTHON) scripts/bootstrap.py test
	@$(PYTHON) scripts/bootstrap.py peers
	@exec .venv/bin/python -m bench.peers

clean:
	@$(PYTHON) scripts/bootstrap.py
	@$(PYTHON) -m local_stack.run.clean

lock:
	@$(PYTHON) scripts/bootstrap.py
	@$(PYTHON) scripts/lock.py $(UPGRADE)

scenarios:
	@$(PYTHON) scripts/bootstrap.py test
	@# Hosts of a run that was cut off must not be taken for hosts that run.
	@PATH="$(CURDIR)/.venv/bin:$$PATH" molecule reset -s default
	@PATH="$(CURDIR)/.venv/bin:$$PATH" molecule test --all --report
	@.venv/bin/python molecule/report.py --complete

docs:
	@$(PYTHON) scripts/bootstrap.py test
	@.venv/bin/python scripts/variables.py
