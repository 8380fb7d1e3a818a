"""A run as one page that needs nothing but itself: no network, no other file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape
from pathlib import Path

from npmobilenet import __version__
from npmobilenet.bench import papers, plots
from npmobilenet.bench.ladder import ladder_names
from npmobilenet.bench.machine import heading
from npmobilenet.bench.noise import NOISY
from npmobilenet.bench.peers.measure import OURS
from npmobilenet.bench.peers.report import fastest_variants, nearness
from npmobilenet.bench.roofline import Roofline
from npmobilenet.text import binary_size, dimensions, megabytes, plural

SECTIONS = {
    "machine": "The machine",
    "layers": "Layer by layer",
    "roofline": "What is possible",
    "ladders": "Ladders",
    "peers": "Other runtimes",
    "papers": "The papers' tables",
    "commands": "Measure it yourself",
}


PARTS = {"blocks": "As it runs, blocks fused", "layers": "Every layer by itself"}


def page(run: dict) -> str:
    """Return a run as HTML.

    Parameters
    ----------
    run : dict
        With networks and ladders, and comparisons of runtimes if there are any.
    """
    best = run["networks"][0]
    parts = {
        "machine": _machine(run),
        "layers": _layers(run),
        "roofline": _roofline(run),
        "ladders": _ladders(run),
        "peers": _peers(run),
        "papers": _papers(),
        "commands": _commands(best),
    }
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>npmobilenet: {escape(best['network'])}</title>",
            f"<style>\n{_style()}</style>\n</head>\n<body>\n<main>",
            "<h1>How fast npmobilenet is, and how fast it could be</h1>",
            f'<p class="soft">{escape(" · ".join(heading(run)))}</p>',
            *_cards(run["networks"]),
            *_warnings(run),
            "<nav>" + " ".join(f'<a href="#{key}">{title}</a>' for key, title in SECTIONS.items()) + "</nav>",
            *(
                line
                for key, title in SECTIONS.items()
                for line in (f'<section id="{key}">\n<h2>{title}</h2>', *parts[key], "</section>")
            ),
            "</main>\n</body>\n</html>\n",
        ]
    )


def _cards(networks: Sequence[dict]) -> Iterator[str]:
    yield '<div class="cards">'
    for found in networks:
        about = f"{found['network']}, batch {found['batch']}, {plural(found['threads'], 'thread')}"
        noise = " ~" if found["spread"] > NOISY else ""
        yield _card(f"{found['milliseconds']:.2f} ms{noise}", about)
        yield _card(f"{found['of_peak']:.0%}", f"of the peak of {plural(found['threads'], 'thread')}")
    yield "</div>"


def _card(number: str, about: str) -> str:
    return f'<div class="card"><b>{escape(number)}</b><span>{escape(about)}</span></div>'


def _warnings(run: dict) -> Iterator[str]:
    if run.get("warnings"):
        yield '<div class="warning"><b>This run was noisy: take its figures with care.</b><ul>'
        yield from (f"<li>{escape(warning)}</li>" for warning in run["warnings"])
        yield "</ul></div>"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]], title: str = "") -> str:
    """A table of numbers; the first column, and those without a name, are text. One that is too wide is scrolled."""
    lines = [f"<h3>{escape(title)}</h3>"] if title else []  # a caption would be scrolled with the table
    lines += ['<div class="scroll"><table>']
    lines.append("<thead><tr>" + "".join(f"<th>{escape(name)}</th>" for name in header) + "</tr></thead><tbody>")
    kinds = ["", *(' class="text"' if not name else "" for name in header[1:])]
    for row in rows:
        cells = (f"<td{kind}>{escape(cell)}</td>" for kind, cell in zip(kinds, row, strict=True))
        lines.append("<tr>" + "".join(cells) + "</tr>")
    return "\n".join([*lines, "</tbody></table></div>"])


def _figure(svg: str, caption: str) -> str:
    return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>"


def _details(summary: str, lines: Iterable[str]) -> str:
    return "\n".join([f"<details><summary>{escape(summary)}</summary>", *lines, "</details>"])


def _style() -> str:
    """The style sheet beside this file, be it in a folder or in an archive."""
    return __spec__.loader.get_data(str(Path(__file__).with_name("page.css"))).decode()


def _machine(run: dict) -> Iterator[str]:
    yield (
        "<p>Every percentage on this page is of what this very machine did in the same run: multiply-adds on "
        "registers alone, and a buffer read or copied again and again, from one that fits the nearest cache to one "
        "that fits none.</p>"
    )
    limits = run["limits"]
    levels = zip(*(row["levels"] for row in limits), strict=True)
    yield _table(
        ["", *(plural(row["threads"], "thread") for row in limits)],
        [
            ["multiply-adds, GFLOP/s", *(f"{row['gflops']:.0f}" for row in limits)],
            *(
                [f"{binary_size(level[0]['bytes'])}, GB/s", *(f"{one['gbytes']:.0f}" for one in level)]
                for level in levels
            ),
        ],
    )
    facts = {
        "CPU": f"{run['cpu']}, {run['vectors']}, {run['cpus']} CPUs for this process",
        "system": run["system"],
        "Python": run["python"],
        "packages": ", ".join(f"{name} {version}" for name, version in run["versions"].items()),
        "npmobilenet": f"{__version__}, commit {run['commit'] or 'unknown'}",
        "load average": ", ".join(f"{load:.1f}" for load in run["load"]) if run["load"] else "unknown",
    }
    yield '<div class="scroll"><table><tbody>'
    yield from (f'<tr><td>{name}</td><td class="text">{escape(fact)}</td></tr>' for name, fact in facts.items())
    yield "</tbody></table></div>"


def _layers(run: dict) -> Iterator[str]:
    yield (
        "<p>The times are taken inside the network's own run: first as a model runs it, with whole blocks as one call; "
        "then each layer as a call of its own, which takes longer in all, but shows each.</p>"
    )
    for found in run["networks"]:
        yield f'<h3>{escape(found["network"])}, {plural(found["threads"], "thread")}</h3>\n<div class="grid">'
        for part, title in PARTS.items():
            if not found[part]:  # the plain kernels fuse nothing
                continue
            total = sum(row["milliseconds"] for row in found[part])
            yield f"<div>{_figure(plots.layers(found, part), f'{title}: {total:.2f} ms in all, one image.')}"
            yield _details("the numbers", [_layer_table(found[part])]) + "</div>"
        yield "</div>"


def _layer_table(rows: Sequence[dict]) -> str:
    header = ("", "output", "MMACs", "µs", "share", "GFLOP/s", "peak", "GB/s", "memory", "possible")
    return _table(
        header,
        (
            (
                row["name"].replace("+", " + "),
                dimensions((*row["output"][1:], row["output"][0])),
                f"{row['macs'] / 1e6:.2f}",
                f"{1e3 * row['milliseconds']:.1f}" + " ~" * (row["spread"] > NOISY),
                f"{row['share']:.1%}",
                f"{row['gflops']:.1f}",
                f"{row['of_peak']:.0%}",
                f"{row['gbytes']:.1f}",
                f"{row['of_bandwidth']:.0%}",
                f"{row['of_possible']:.0%}",
            )
            for row in rows
        ),
    )


def _roofline(run: dict) -> Iterator[str]:
    why = (
        "<p>A layer can run no faster than the CPU multiplies (the flat line), nor than the memory hands over what it "
        "reads and writes (the slopes: buffers of three sizes). Pointwise convolutions do many operations for each "
        "byte and meet the flat line; depthwise ones do few, and meet a slope. That is why a block is computed as "
        "one call: its inner tensors never leave the cache, and the whole stands far to the right of its parts.</p>"
    )
    limits = {row["threads"]: row for row in run["limits"]}
    yield '<div class="grid">'
    for found in run["networks"]:
        about = f"{found['network']}, {plural(found['threads'], 'thread')}; each point is a layer or a fused block."
        roof = Roofline.of(limits[found["threads"]], found.get("dtype", "float32"))
        yield _figure(plots.roofline(roof, found), about)
    yield f"{why}</div>"


def _ladders(run: dict) -> Iterator[str]:
    yield (
        "<p>One layer, computed by every version of its operation from the textbook's loops up. The last row is the "
        "engine's kernel inside its network.</p>"
    )
    short = {operation: name for name, operation in ladder_names().items()}
    told = set()
    for found in run["ladders"]:
        where = f"{found['network']} {found['layer']}, {plural(found['threads'], 'thread')}"
        title = short.get(found["operation"], found["operation"]).replace("_", " ").capitalize()
        yield f"<h3>{escape(title)}</h3>\n<div class='grid'>"
        yield _figure(plots.ladder(found), f"{where}; {found['macs'] / 1e6:.2f} million multiply-adds.")
        if found["operation"] not in told:  # on other layers and threads the lessons are the same
            yield '<ol class="lessons">'
            yield from (f"<li><b>{escape(row['rung'])}</b>: {escape(row['lesson'])}</li>" for row in found["rows"])
            yield "</ol>"
        told.add(found["operation"])
        yield "</div>" + _details("the numbers", [_ladder_table(found)])


def _ladder_table(found: dict) -> str:
    header = ("", "ms", "speed-up", "GFLOP/s", "peak", "possible", "largest error", "timed on")
    between = any(row.get("between") for row in found["rows"])
    return _table(
        (*header, "memory between") if between else header,
        (
            (
                row["rung"],
                f"{row['milliseconds']:,.3f}" + " ~" * (row["spread"] > NOISY),
                f"× {row['speedup']:,.1f}",
                f"{row['gflops']:.3g}",
                f"{row['of_peak']:.1%}",
                f"{row['of_possible']:.1%}",
                "" if row["error"] is None else f"{row['error']:.0e}",
                f"{row['channels_timed']} of {found['channels']} channels",
                *([megabytes(row["between"])] if between else []),
            )
            for row in found["rows"]
        ),
    )


def _peers(run: dict) -> Iterator[str]:
    if not run.get("comparisons"):
        yield (
            "<p>Not measured in this run. <code>npmobilenet bench --peers --json peers.json</code> measures those that "
            "are installed; give the file to <code>npmobilenet report OUT.html --from peers.json</code>.</p>"
        )
        return
    yield (
        "<p>The same network and weights in each, in processes of their own, in turns, with their outputs compared "
        "first; of several ways to use a runtime the fastest.</p>"
    )
    yield '<div class="grid">'
    for found in run["comparisons"]:
        about = f"{found['network']}, batch {found['batch']}, {plural(found['threads'], 'thread')}"
        yield f"<div>{_figure(plots.peers(found), f'{about}; medians of rounds.')}"
        rows = (
            (
                f"{row['runtime']} {row['version'].partition('+')[0]}",
                f"{row['milliseconds']:.2f}" + " ~" * (row["spread"] > NOISY),
                f"{row['images_per_second']:.1f}",
                f"{row['of_peak']:.0%}",
                "" if row["runtime"] == OURS else f"{1 / row['ours_over_this']:.2f}",
                nearness(row),
            )
            for row in fastest_variants(found["rows"])
        )
        near = "dB, same class" if found.get("dtype") == "int8" else "difference"
        header = ("", "ms", "images/s", "of peak", "of ours", near)
        yield _details("the numbers", [_table(header, rows)]) + "</div>"
    yield "</div>"


def _papers() -> Iterator[str]:
    yield (
        "<p>Multiply-adds and parameters as printed, and as counted from the networks here. The tables' parameters "
        "are the weights of convolutions and classifier; MixNet's are all that is learned. Accuracies are the "
        "papers' own.</p>"
    )
    for title, rows in papers.TABLES.items():
        every = "MixNet" in title
        yield _table(
            ("", "top-1", "million MACs", "counted", "million parameters", "counted", ""),
            (
                (
                    row.row,
                    f"{row.top1:.1f} %",
                    f"{row.macs:g}",
                    f"{row.counts.macs / 1e6:.1f}",
                    f"{row.parameters:g}",
                    f"{(row.counts.parameters if every else row.counts.weights) / 1e6:.2f}",
                    row.note,
                )
                for row in rows
            ),
            title,
        )


def _commands(found: dict) -> Iterator[str]:
    name = found["network"].split("-")[0]
    lines = (
        f"npmobilenet bench {name} --threads 1,2 --unfused --json run.json",
        "npmobilenet bench --ladder depthwise",
        "npmobilenet bench --peers --json peers.json",
        "npmobilenet bench --compare old.json new.json",
        "npmobilenet report report.html --from run.json peers.json",
    )
    yield "<p>~ marks times that vary by more than 15 % between the rounds of the run.</p>"
    yield f"<pre>{escape(chr(10).join(lines))}</pre>"
