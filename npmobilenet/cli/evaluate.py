"""``npmobilenet evaluate``: how often a network is right on photographs of one's own, or agrees with another."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from npmobilenet.cli.options import add_model_options, load_model, load_models, positive
from npmobilenet.cli.photographs import Run, find_images
from npmobilenet.cli.terminal import on_a_line
from npmobilenet.text import plural, printable, quote, to_json

if TYPE_CHECKING:
    import numpy as np

    from npmobilenet.cli.labelled import Labelled
    from npmobilenet.evaluation import Difference, Evaluation, Share
    from npmobilenet.labels import Labels


def add_parser(commands: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the subcommand."""
    parser = commands.add_parser(
        "evaluate",
        help="how often a network is right on photographs of yours, or agrees with another",
        description="Compute top-1 and top-5 accuracy, with 95 % confidence intervals. Labels are names of classes "
        "(capitals, hyphens and underscores count for nothing), their numbers, or for ImageNet's classes synsets such "
        "as n01440764.",
    )
    parser.add_argument(
        "source",
        metavar="FOLDER|LIST",
        help="a folder with a folder for each class; or a file (- for standard input) with a photograph and its label "
        "on each line, separated by a comma, semicolon, tab or space, with or without a header; paths are relative to "
        "the file",
    )
    parser.add_argument(
        "--against",
        metavar="NAME|CHECKPOINT",
        help="compare with these weights: where both agree, and which is right where they do not. The options below "
        "are for both; if one of the two is known by name, for the other alone",
    )
    parser.add_argument(
        "--unlabelled", action="store_true", help="the photographs have no labels: only compare, --against another"
    )
    parser.add_argument(
        "--show", type=positive, default=10, metavar="N", help="mistakes and differences (default %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print the same as JSON, with all mistakes and differences")
    add_model_options(parser)
    return parser


def run(options: argparse.Namespace) -> int:
    """Evaluate; photographs that cannot be read are reported, left out, and make the exit code 1."""
    import numpy as np

    from npmobilenet.evaluation import Evaluation
    from npmobilenet.labels import Labels

    if options.unlabelled and not options.against:
        raise ValueError("--unlabelled photographs can only be used to compare: --against another network")
    models = load_models(options, options.against) if options.against else (load_model(options),)
    for model in models:
        model.require_classifier()
        if len(model.classes) < 2:
            raise ValueError(
                f"{printable(model.source)}: has {plural(len(model.classes), 'output')}: two or more classes are needed"
            )
    labels = [Labels(model.classes) for model in models]
    evaluation = Evaluation(*(model.classes for model in models))
    items = _photographs(options, labels[0])
    for label in {item.label for item in items} - {None}:
        if not evaluation.knows(label):
            raise ValueError(f"{printable(models[1].source)}: has no class {quote(models[0].classes[label])}")

    def compute(*batches: np.ndarray) -> Iterator[tuple[np.ndarray, ...] | ValueError]:
        for logits in zip(*(model(batch) for model, batch in zip(models, batches, strict=True)), strict=True):
            finite = all(np.isfinite(row.max()) for row in logits)
            yield logits if finite else ValueError("the logits are not finite; are the weights damaged?")

    images = Run([item.photograph for item in items], models, compute)
    for (photograph, logits), item in zip(images, items, strict=True):
        if not isinstance(logits, Exception):
            evaluation.add(photograph.name, item.label, logits)
    code = images.exit_code()
    if images.failed == len(items):
        raise ValueError(f"{printable(options.source)}: no photograph could be evaluated")
    found = _Found(evaluation, [model.source for model in models], labels)
    if options.json:
        print(to_json({"source": options.source, "failed": images.failed, **found.numbers()}, indent=1))
    else:
        print("\n".join(found.lines(options.show)))
    return code


def _photographs(options: argparse.Namespace, labels: Labels) -> list[Labelled]:
    from npmobilenet.cli.labelled import Labelled, labelled

    if options.unlabelled:
        return [Labelled(photograph, None) for photograph in find_images([options.source])]
    return labelled(options.source, labels)


@dataclass(frozen=True)
class _Found:
    """An evaluation, to be shown: with the weights' names, and the names of their classes."""

    evaluation: Evaluation
    sources: Sequence[str]
    labels: Sequence[Labels]

    # --- for people

    def lines(self, most: int) -> Iterator[str]:
        """The text; of mistakes and differences only so many."""
        for index, tally in enumerate(self.evaluation.tallies):
            if not tally.labels:  # photographs without labels
                continue
            classes = len(tally.labels)
            photographs = plural(tally.labels.total(), "photograph")
            yield f"{on_a_line(self.sources[index])}: {photographs} of {classes} class{'es' * (classes != 1)}"
            yield f"  top-1  {_percent(tally.top1)}"
            if len(self.labels[index].classes) > 5:
                yield f"  top-5  {_percent(tally.top5)}"
            if tally.mistakes:
                yield "  most frequent mistakes:"
            for (label, prediction), count in tally.mistakes.most_common(most):
                yield f"  {count:5}  {self._name(index, label)} -> {self._name(index, prediction)}"
        if self.evaluation.comparison:
            yield from self._comparison(most)
        yield "in brackets: 95 % confidence intervals"

    def _comparison(self, most: int) -> Iterator[str]:
        comparison = self.evaluation.comparison
        first, second = map(on_a_line, self.sources)
        yield f"{first} and {second}: {plural(comparison.total, 'photograph')}"
        yield f"  agree  {_percent(comparison.agreement)}"
        right = comparison.right
        if any(right):
            yield (
                f"  right: both {right[True, True]:,}, only the first {right[True, False]:,}, only the second "
                f"{right[False, True]:,}, neither {right[False, False]:,}"
            )
            yield f"  as large a difference comes about by chance with probability {comparison.chance:.2g} (McNemar)"
        if comparison.differences:
            yield "  different answers:"
        for one in comparison.differences[:most]:
            label = "" if one.label is None else f" ({self._name(0, one.label)})"
            yield f"    {on_a_line(one.name)}{label}: {self._name(0, one.first)} | {self._name(1, one.second)}"
        if len(comparison.differences) > most:
            yield f"    and {len(comparison.differences) - most:,} more (--show, --json)"

    def _name(self, index: int, label: int) -> str:
        return printable(self.labels[index].shown(label))

    # --- for programs

    def numbers(self) -> dict[str, Any]:
        """All of it."""
        comparison = self.evaluation.comparison
        return {
            "models": [self._model(index) for index in range(len(self.sources))],
            "comparison": comparison
            and {
                "agreement": _share(comparison.agreement),
                "right": {
                    "both": comparison.right[True, True],
                    "first": comparison.right[True, False],
                    "second": comparison.right[False, True],
                    "neither": comparison.right[False, False],
                    "chance": comparison.chance,
                }
                if any(comparison.right)
                else None,
                "differences": [self._difference(one) for one in comparison.differences],
            },
        }

    def _model(self, index: int) -> dict[str, Any]:
        tally, labels = self.evaluation.tallies[index], self.labels[index]
        return {
            "model": self.sources[index],
            "top1": _share(tally.top1) if tally.labels else None,
            "top5": _share(tally.top5) if tally.labels and len(labels.classes) > 5 else None,
            "classes": [
                {"index": label, "label": labels.classes[label], "images": count, "right": tally.right[label]}
                for label, count in sorted(tally.labels.items())
            ],
            "mistakes": [
                {"label": labels.shown(label), "prediction": labels.shown(prediction), "count": count}
                for (label, prediction), count in tally.mistakes.most_common()
            ],
        }

    def _difference(self, one: Difference) -> dict[str, Any]:
        return {
            "image": one.name,
            "label": None if one.label is None else self.labels[0].shown(one.label),
            "predictions": [self.labels[0].shown(one.first), self.labels[1].shown(one.second)],
        }


def _percent(share: Share) -> str:
    limits = f"({100 * share.low:.2f} to {100 * share.high:.2f})"
    return f"{100 * share.value:6.2f} %  {limits}  {share.count:,} of {share.total:,}"


def _share(share: Share) -> dict[str, Any]:
    return {**share._asdict(), "share": share.value}
