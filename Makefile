# make            lists every target
# Two stamps in .venv are named by the lock's checksum, so a second run installs nothing and a changed lock installs itself.
VENV ?= .venv
DEMO ?= live
# From the command line only: an exported SERVERS of something else must not lead the demo to other servers.
DEMO_SERVERS := $(if $(filter command,$(origin SERVERS)),--servers $(SERVERS))
# Test files run side by side, each worker with servers of its own: most tests wait. 0 runs them in one process.
WORKERS ?= 4
BIN := $(VENV)/bin
lock_stamp = $(VENV)/.installed-$(1)-$(shell cksum <requirements/$(1).txt | cut -d ' ' -f 1)
DEMO_STAMP := $(call lock_stamp,demo)
DEV_STAMP := $(call lock_stamp,dev)
LOCKS := dev serve streams train database excel spark demo peers
ROOMS := core models store engines streams training api testing demo
CODE := eddyline.py $(ROOMS) tests benchmarks clients/python

.DEFAULT_GOAL := help
.PHONY: help install demo test matrix check client-types format lock bench bench-door bench-freshness bench-peers bench-quality clean

help:
	@echo 'Eddyline, a streaming recommender. Python 3.11 or newer is all it needs.'
	@echo
	@echo '  make demo           the whole loop on this machine: events, ingest, training, three answers over HTTP; Ctrl-C ends it'
	@echo '  make demo DEMO=once the same, and exits with 0 or 1'
	@echo '  make install        packages into .venv, and the command eddyline there: docs/your-own-domain.md'
	@echo '  make test           all tests, on real embedded servers (TESTS="tests/core -k codec" for some)'
	@echo '  make matrix         every secured Kafka with every secured Redis; needs KAFKA_HOME'
	@echo '  make check          ruff, mypy, import-linter, the compose file against the Compose schema'
	@echo '  make format         ruff format and its safe fixes'
	@echo '  make bench          speed: a table, and benchmarks/results/results.json'
	@echo '  make bench-door     ordinary reads of the API beside clients that send too much, wait, or do not read'
	@echo '  make bench-freshness  from an event to the answer that includes it, the whole stack at 5,000 events/s'
	@echo '  make bench-peers    ingest beside Bytewax, Quix Streams and Faust, quiet and beside a busy neighbour; needs KAFKA_HOME'
	@echo '  make bench-quality  ranking quality on MovieLens: benchmarks/results/quality.json'
	@echo '  make client-types   the TypeScript client'"'"'s types, from the OpenAPI document; needs Node 20 and npm'
	@echo '  make lock           requirements/*.in -> requirements/*.txt'
	@echo '  make clean          removes .venv, .demo and caches; keeps data/ and models/artifacts/'
	@echo
	@echo 'KAFKA_HOME=/path/to/kafka (an unpacked Apache Kafka 4, and java) runs demo and tests on that broker.'
	@echo 'REDIS_SERVER=valkey-server (a name or path) runs them on that server, not on the first of redis-server and valkey-server on PATH.'
	@echo 'make demo SERVERS=environment uses the Kafka and the Redis of .env and the environment, if they hold no other data.'

install: $(DEMO_STAMP)
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps --editable .

demo: $(DEMO_STAMP)
	@$(BIN)/python -m demo $(if $(filter once,$(DEMO)),--once) $(DEMO_SERVERS)

test: $(DEV_STAMP)
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(TESTS)

matrix: $(DEV_STAMP)
	$(BIN)/python -m tests.secured.matrix

check: $(DEV_STAMP)
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml

format: $(DEV_STAMP)
	$(BIN)/ruff check --fix $(CODE)
	$(BIN)/ruff format $(CODE)

bench: $(DEV_STAMP)
	$(BIN)/python -m benchmarks speed

bench-door: $(DEV_STAMP)
	$(BIN)/python -m benchmarks.door

bench-freshness: $(DEV_STAMP)
	$(BIN)/python -m benchmarks.freshness

# The peers need other versions of the Kafka client than the product.
bench-peers: $(DEV_STAMP)
	@requirements/install .venv-peers requirements/peers.txt
	$(BIN)/python -m benchmarks.peers --neighbour --peer-python .venv-peers/bin/python

bench-quality: $(DEV_STAMP)
	$(BIN)/python -m benchmarks quality

client-types: $(DEV_STAMP)
	$(BIN)/python -c 'import json; from api.app import create_app; from core.settings import Settings; \
	  print(json.dumps(create_app(Settings(_env_file=None)).openapi()))' > clients/typescript/openapi.json
	cd clients/typescript && npm ci && npm run generate

# A lock names torch without the local version (+cpu) that only some indexes have.
lock: $(DEV_STAMP)
	@cd requirements && for name in $(LOCKS); do \
	  echo "requirements/$$name.txt"; \
	  CUSTOM_COMPILE_COMMAND='make lock' ../$(BIN)/pip-compile --quiet --strip-extras --allow-unsafe --annotation-style line \
	    --no-emit-options --no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
	    $$(case $$name in dev | peers) ;; *) echo --constraint dev.txt ;; esac) --output-file $$name.txt $$name.in || exit 1; \
	  sed -i 's/^\(torch==[0-9.]*\)+cpu/\1/' $$name.txt; \
	done

clean:
	rm -rf $(VENV) .venv-peers .demo .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find $(CODE) -name __pycache__ -type d -prune -exec rm -rf {} +

# dev.txt holds every pin of demo.txt, so after it there is nothing left for the demo to install.
$(DEV_STAMP):
	@requirements/install $(VENV) requirements/dev.txt
	@rm -f $(VENV)/.installed-* && touch $@ $(DEMO_STAMP)

$(DEMO_STAMP):
	@requirements/install $(VENV) requirements/demo.txt
	@rm -f $(VENV)/.installed-* && touch $@
