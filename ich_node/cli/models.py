"""Commands of models: bundles on the disk, and which of them the node uses."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ich_node.cli.node import Commands, audit_command, open_queue, read_config, with_config
from ich_node.cli.terminal import printable, who_says_so

if TYPE_CHECKING:
    from ich_node.model_shelf import ShelvedModel
    from ich_node.records import ModelUse

DEFAULT_BUNDLE = Path("models/ich-irv2")


def add_commands(commands: Commands) -> None:
    """Add model list, verify, sign, init-untrained, use and silent."""
    model = commands.add_parser("model", help="list, verify, make and choose model bundles")
    actions = model.add_subparsers(title="actions", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="list the bundles in a folder")
    listing.add_argument("directory", type=Path, nargs="?", default=Path("models"), help="default models")
    listing.set_defaults(run=_model_list)
    verify = actions.add_parser("verify", help="check every file of a bundle against its hash")
    verify.add_argument("directory", type=Path, nargs="?", default=DEFAULT_BUNDLE, help=f"default {DEFAULT_BUNDLE}")
    verify.add_argument("--public-key", type=Path, metavar="FILE", help="it must be signed with this key (Ed25519)")
    verify.set_defaults(run=_model_verify)
    sign = actions.add_parser("sign", help="sign the manifest of a bundle that is whole (Ed25519)")
    sign.add_argument("directory", type=Path, help="the bundle")
    sign.add_argument("--key", type=Path, required=True, metavar="FILE", help="private key (Ed25519, PEM)")
    sign.set_defaults(run=_model_sign)
    make = actions.add_parser("init-untrained", help="make a bundle with random weights, until there is a trained one")
    make.add_argument("directory", type=Path, nargs="?", default=DEFAULT_BUNDLE, help=f"default {DEFAULT_BUNDLE}")
    make.add_argument(
        "--backbone", default="inception_resnet_v2", help="as timm names it (default inception_resnet_v2)"
    )
    make.add_argument("--size", type=int, default=299, metavar="PX", help="input size (default 299)")
    make.add_argument("--sequence-head", action="store_true", help="with a sequence head")
    make.add_argument("--seed", type=int, default=0, metavar="N")
    make.set_defaults(run=_model_init_untrained)
    _add_choices(actions)


def _add_choices(actions: Commands) -> None:
    text = "let a model answer from now on; the running worker loads it beside the one that answers"
    use = actions.add_parser("use", help=text, description=text)
    text = "let a model score in silence what the other one has answered, or none any more"
    silent = actions.add_parser("silent", help=text, description=text)
    use.add_argument("directory", type=Path, help="the bundle")
    which = silent.add_mutually_exclusive_group(required=True)
    which.add_argument("directory", type=Path, nargs="?", help="the bundle")
    which.add_argument("--none", action="store_true", help="no model any more")
    for parser, run in ((use, _model_use), (silent, _model_silent)):
        parser.add_argument("--reason", required=True, metavar="TEXT", help="why; it is shown beside the choice")
        parser.add_argument("--by", metavar="NAME", help="who says so (default: the user of this command)")
        with_config(parser)
        parser.set_defaults(run=run)


def _model_list(options: argparse.Namespace) -> int:
    from ich_node.model.bundle import MANIFEST, load_bundle

    bundles = sorted(path.parent for path in options.directory.glob(f"*/{MANIFEST}"))
    for directory in bundles:
        bundle = load_bundle(directory)
        identity, stated = bundle.identity, bundle.manifest.quantized
        trained, signed = "trained" if identity.trained else "UNTRAINED", identity.signature
        sys.stdout.write(f"{directory}  {identity.name} {identity.version}  {identity.backbone}  {trained}  {signed}\n")
        measured = [f"openvino-int8: {stated.figures.in_words()}"] if stated and stated.figures else []
        sys.stdout.write("".join(f"    {line}\n" for line in [*identity.operating_points.values(), *measured]))
    if not bundles:
        sys.stderr.write(f"ich-node: no model bundle in {options.directory}; make one: ich-node model init-untrained\n")
    return 0 if bundles else 1


def _model_verify(options: argparse.Namespace) -> int:
    from ich_node.model.bundle import verify_bundle

    faults = verify_bundle(options.directory, options.public_key)
    for fault in faults:
        sys.stderr.write(f"ich-node: {fault}\n")
    if not faults:
        signed = ", and the signature with the key" if options.public_key else ""
        sys.stdout.write(f"{options.directory}: every file agrees with its hash{signed}\n")
    return 1 if faults else 0


def _model_sign(options: argparse.Namespace) -> int:
    from ich_node.model.bundle import sign_bundle
    from ich_node.model.signature import SIGNATURE

    sign_bundle(options.directory, options.key)
    sys.stdout.write(f"{options.directory / SIGNATURE} written\n")
    return 0


def _model_init_untrained(options: argparse.Namespace) -> int:
    from ich_node.model.bundle import MANIFEST
    from ich_node.model.untrained import make_untrained_bundle
    from ich_node.phantom import LESIONS, PhantomSettings, draw_volume

    if (options.directory / MANIFEST).exists():
        sys.stderr.write(f"ich-node: {options.directory} already holds a model bundle; nothing was changed\n")
        return 1
    began = time.perf_counter()
    volumes = [
        draw_volume(PhantomSettings(lesion=lesion, slices=8, rows=256, seed=seed, slice_spacing_mm=16))
        for seed, lesion in enumerate((None, *LESIONS))
    ]
    make_untrained_bundle(
        options.directory,
        volumes,
        backbone=options.backbone,
        size_px=options.size,
        sequence_head=options.sequence_head,
        seed=options.seed,
        name=options.directory.name,
    )
    seconds = time.perf_counter() - began
    sys.stdout.write(
        f"{options.directory}: untrained {options.backbone} at {options.size} px made in {seconds:.0f} s\n"
    )
    return 0


def _model_use(options: argparse.Namespace) -> int:
    from ich_node.records import ModelUse

    return _choose(options, ModelUse.ACTIVE, _shelved(options.directory))


def _model_silent(options: argparse.Namespace) -> int:
    from ich_node.records import ModelUse

    return _choose(options, ModelUse.SILENT, None if options.none else _shelved(options.directory))


def _shelved(directory: Path) -> ShelvedModel:
    """Read what a bundle says of itself.

    Raises:
        ModelError: it says nothing that is understood.
    """
    from ich_node.errors import ModelError
    from ich_node.model_shelf import shelved_model

    model = shelved_model(directory.resolve())
    if model.fault:
        raise ModelError(f"{directory}: {model.fault}")
    return model


def _choose(options: argparse.Namespace, use: ModelUse, model: ShelvedModel | None) -> int:
    from ich_node.job_queue.model_choices import choose_model

    config, by = read_config(options), who_says_so(options.by)
    reason = printable(" ".join(options.reason.split()))[:200]
    if not reason:
        sys.stderr.write("ich-node model: the reason is empty\n")
        return 2
    choose_model(open_queue(config), use, model, reason=reason, by=by, configured=config.model.directory)
    name, version, sha256 = ("none", "", "") if model is None else (model.name, model.version, model.sha256)
    audit_command(config, f"model-{'use' if use == 'active' else use}", By=by, Name=name, Version=version,
                  Sha256=sha256, Reason=reason)  # fmt: skip
    what = f"{name} {version}".strip()
    sys.stdout.write(f"asked for: {what}. The worker loads it; `/node/models` and its log say when it is in use\n")
    return 0
