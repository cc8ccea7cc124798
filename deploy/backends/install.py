"""Installs the inference backends that tests and demonstrations run, outside the checkout. README.md says how."""

import argparse
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

if sys.version_info < (3, 11):  # noqa: UP036 - any python3 may be the one that runs this
    sys.exit(f"install.py needs Python 3.11 or later; this is {sys.version.split()[0]}")

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # run as a file, by any python3: nothing is installed

from deploy.backends.llama_server import LlamaServer
from deploy.backends.recipe import Recipe
from deploy.backends.steps import Consent, Steps, say
from deploy.backends.store import InstallError, Slot, Stamp, default_root, size_of
from deploy.backends.transformers_serve import TransformersServe
from deploy.backends.vllm_cpu import VllmCpu

NAMES = ("llama-server", "transformers", "vllm")
DEFAULT = ("llama-server", "transformers")


def recipes(environ: Mapping[str, str], root: Path, *, compile_it: bool) -> dict[str, Recipe]:
    """Return how each backend is installed."""
    llama_server = LlamaServer(search_path=environ.get("PATH", ""), ours=root, compile_it=compile_it)
    return {recipe.name: recipe for recipe in (llama_server, TransformersServe(), VllmCpu())}


def installed(recipe: Recipe, slot: Slot) -> Stamp | None:
    """Return the stamp of an installation that is finished and as the recipe has it now."""
    stamp = slot.stamp()
    return stamp if stamp and slot.usable(recipe.programs) and stamp.digest in recipe.accepted else None


def install(recipe: Recipe, slot: Slot, consent: Consent) -> None:
    """Install one backend if it is not there as it should be. Raises InstallError."""
    if installed(recipe, slot) is None:
        with slot.locked(lambda: say(f"{recipe.name}: another run is installing it; waiting for that")):
            if installed(recipe, slot) is None:
                _build(recipe, slot, consent)
    stamp = installed(recipe, slot)
    if stamp is None:
        raise InstallError(f"{slot.home} was installed and is not usable; remove it and run this again")
    say(f"{recipe.name:<13} ready  {slot.home / recipe.programs[0]}  ({stamp.version}, {_megabytes(stamp)})")


def _build(recipe: Recipe, slot: Slot, consent: Consent) -> None:
    with slot.building() as build:
        steps = Steps(recipe.name, slot.log, consent)
        built = recipe.build(build, steps)
        slot.publish(
            build,
            Stamp(
                digest=built.digest, version=built.version, seconds=round(steps.seconds, 1), size_bytes=size_of(build)
            ),
        )


def check(wanted: Sequence[Recipe], root: Path) -> int:
    """Print a table of what is there. Return 1 if something is missing or was made from other pins."""
    missing = 0
    say(f"{'BACKEND':<13}{'STATE':<10}{'SIZE':<9}{'TOOK':<8}{'VERSION':<44}PROGRAM")
    for recipe in wanted:
        slot = Slot(root, recipe.name)
        stamp = installed(recipe, slot)
        if stamp is None:
            missing += 1
            say(f"{recipe.name:<13}{'outdated' if slot.usable(recipe.programs) else 'missing'}")
        else:
            took = f"{stamp.seconds:.0f} s"
            program = slot.home / recipe.programs[0]
            say(f"{recipe.name:<13}{'ready':<10}{_megabytes(stamp):<9}{took:<8}{stamp.version:<44}{program}")
    return 1 if missing else 0


def where(recipe: Recipe, root: Path) -> int:
    """Print the path of a backend's program, and return 1 if it is not there yet."""
    slot = Slot(root, recipe.name)
    say(str(slot.home / recipe.programs[0]))
    return 0 if installed(recipe, slot) else 1


def consent_from(environ: Mapping[str, str], *, yes: bool) -> Consent:
    """Ask at a terminal; without one, or in CI, only --yes is a yes."""

    def consent(question: str) -> None:
        say(question)
        if yes:
            return
        if environ.get("CI") or not sys.stdin.isatty():
            raise InstallError("Nothing was downloaded. To have it all the same, run this again with --yes.")
        say("Go on? [y/N]")
        if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
            raise InstallError("Nothing was downloaded.")

    return consent


def _megabytes(stamp: Stamp) -> str:
    return f"{stamp.size_bytes / 1e6:.0f} MB"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="install.py", description=__doc__)
    parser.add_argument(
        "backends", nargs="*", metavar="BACKEND", help=f"any of {', '.join(NAMES)}; default: {', '.join(DEFAULT)}"
    )
    parser.add_argument(
        "--check", action="store_true", help="print what is there; exit 1 if something asked for is not"
    )
    parser.add_argument(
        "--where", metavar="BACKEND", choices=NAMES, help="print the path of its program; exit 1 if it is not there"
    )
    parser.add_argument("--build", action="store_true", help="compile llama-server even if there is one on PATH")
    parser.add_argument("--yes", action="store_true", help="say yes to gigabytes of CUDA")
    return parser


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run the command line and return its exit status."""
    parser = _parser()
    options = parser.parse_args(argv)
    if unknown := sorted(set(options.backends) - set(NAMES)):
        parser.error(f"no such backend: {', '.join(unknown)} (there are {', '.join(NAMES)})")
    root = default_root(environ)
    known = recipes(environ, root, compile_it=options.build)
    if options.where:
        return where(known[options.where], root)
    wanted = [known[name] for name in options.backends or DEFAULT]
    if options.check:
        return check(wanted, root)
    for recipe in wanted:
        try:
            install(recipe, Slot(root, recipe.name), consent_from(environ, yes=options.yes))
        except (InstallError, OSError) as error:
            sys.stderr.write(f"\n{recipe.name}: {error}\n")
            return 1
    return 0


if __name__ == "__main__":
    for _ending in (signal.SIGTERM, signal.SIGHUP):  # as exceptions, so that what a build has started ends too
        if signal.getsignal(_ending) is not signal.SIG_IGN:  # as nohup has it
            signal.signal(_ending, lambda number, _: sys.exit(128 + number))
    try:
        sys.exit(main(sys.argv[1:], os.environ))
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
