# Habits mapped onto the presets of CMakePresets.json; nothing is decided here.

.PHONY: help build test check bench format
help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' Makefile

build: ## optimised build: build/release/longspan
	cmake --preset release
	cmake --build --preset release

test: build ## the fast tests
	ctest --preset release -L fast

check: ## everything that must pass before a push
	./check

bench: build ## speed and memory at a few depths (MODEL=file.gguf; default: the model of the demo)
	build/release/longspan bench $(if $(MODEL),-m "$(MODEL)") -p 512 -n 32 -d 0,4096 -r 3

format: ## clang-format on all sources
	find include src cli tests fuzz examples bench -name '*.[ch]' -exec clang-format -i {} +
