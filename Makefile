# Every target installs what it needs and says what it installs. `make` alone lists them.
SHELL := bash
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.PHONY: help demo test test-all lint unit fuzz integration peer servers amqp guard molecule sop sop-mutate sop-prove drill bench delivery docs clean

RUN := tools/setup/run
# A part of the tests, a file or a name: make unit ARGS="-k wire", make molecule SCENARIO=default
ARGS ?=
TESTS ?=
# What of unit, integration and peer runs at a time: most of it waits most of the time. Modules with
# something that is made once for all of their tests stay together.
UNIT_JOBS ?= -n 2 --dist loadfile
INTEGRATION_JOBS ?= -n 4 --dist loadfile
PEER_JOBS ?= -n 3 --dist loadfile
SERVERS_JOBS ?= -n 3
AMQP_JOBS ?= -n 2 --dist loadfile
# How many times slower the relay shall be than it is: make test SLOW=10
SLOW ?=
export FEDMSG_TEST_SLOW := $(SLOW)
SCENARIO ?=
FUZZ_SECONDS ?= 60

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## boot three hosts, deploy to them, send messages and show them arrive
	@tools/setup/packages venv hosts
	@$(RUN) tools/demo

test: ## run all tests (but move, truth and bridge), or what a change touches: make test ARGS=changed
	@tools/setup/packages venv lint faults servers broker docs hosts
	@$(RUN) tools/test $(ARGS)

test-all: ## run all tests, those three too
	@$(MAKE) test ARGS=everything

lint: ## check the code, the Ansible content, the shell scripts and the documents
	@tools/setup/packages venv lint docs
	@$(RUN) tools/lint

unit: ## test the modules, and what the roles refuse
	@tools/setup/packages venv docs
	@$(RUN) python -m pytest $(UNIT_JOBS) $(or $(TESTS),tests/unit tests/roles) $(ARGS)

fuzz: ## attack the parsers with generated input, each for FUZZ_SECONDS (60): make fuzz ARGS=zmtp
	@tools/setup/packages venv
	@PYTHONPATH=files FUZZ_SECONDS=$(FUZZ_SECONDS) $(RUN) python -m tests.fuzz.run $(ARGS)

integration: ## test the programs as processes on this machine
	@tools/setup/packages venv faults
	@$(RUN) python -m pytest $(INTEGRATION_JOBS) $(or $(TESTS),tests/integration) $(ARGS)

peer: ## test the programs together with upstream's fedmsg
	@FEDMSG_PEER_VENV=$$(tools/setup/venv peer) && export FEDMSG_PEER_VENV && \
	  $(RUN) python -m pytest $(PEER_JOBS) $(or $(TESTS),tests/peer) $(ARGS)

servers: ## test the Python API in gunicorn, uWSGI, celery, gevent and asyncio, over restarts
	@tools/setup/packages venv servers
	@FEDMSG_SERVERS_VENV=$$(tools/setup/venv servers) && export FEDMSG_SERVERS_VENV && \
	  $(RUN) python -m pytest $(SERVERS_JOBS) $(or $(TESTS),tests/servers) $(ARGS)

amqp: ## test the bridge to RabbitMQ with a broker and fedora-messaging
	@tools/setup/packages venv broker
	@FEDMSG_AMQP_VENV=$$(tools/setup/venv amqp) && export FEDMSG_AMQP_VENV && \
	  $(RUN) python -m pytest $(AMQP_JOBS) $(or $(TESTS),tests/amqp) $(ARGS)

guard: ## measure shortly whether the relay has become slower than it may be
	@$(RUN) python -m pytest $(or $(TESTS),tests/guard) $(ARGS)

molecule: ## test the roles on real systemd hosts: make molecule SCENARIO=default
	@tools/setup/packages venv hosts
	@FEDMSG_OLDEST_VENV=$$(tools/setup/venv ansible-oldest) && export FEDMSG_OLDEST_VENV && \
	  $(RUN) $(if $(SCENARIO),tools/molecule $(SCENARIO),tools/test molecule)

sop: ## break hosts and mend them as docs/sop.adoc says: make sop ARGS="-k port-in-use"
	@tools/setup/packages venv docs hosts
	@$(RUN) tools/sop $(ARGS)

sop-mutate: ## the same without one command of a mitigation each time: what notices?
	@tools/setup/packages venv docs hosts
	@$(RUN) tools/sop --sop-mutate $(ARGS)

sop-prove: ## the same as sop, and write what passes into the SOP
	@tools/setup/packages venv docs hosts
	@$(RUN) tools/sop --sop-prove $(ARGS)

drill: ## break the demo's hosts without saying how, and time who mends them: make drill ARGS=ID
	@tools/setup/packages venv docs hosts
	@$(RUN) tools/drill $(ARGS)

bench: ## measure the relay beside upstream's and zmq_proxy: 20 minutes; ARGS="throughput --quick"
	@tools/setup/packages venv faults bench $(if $(findstring fleet,$(ARGS)),hosts)
	@$(RUN) python -m bench --output bench/results $(ARGS)

delivery: ## measure the figures of docs/delivery.adoc anew
	@$(RUN) tools/delivery

docs: ## write the generated parts of docs/*.adoc anew and render them to build/docs, HTML and PDF
	@tools/setup/packages venv docs
	@$(RUN) tools/docs-includes
	@tools/docs
	@$(RUN) python -m tests.sop.proven

clean: ## remove the hosts, the networks and build/ of this checkout
	@if command -v podman >/dev/null; then molecule/shared/hosts.py clean; fi
	@rm -rf build
