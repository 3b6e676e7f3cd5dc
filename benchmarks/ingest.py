"""Ingestion against its peers and against what the disk format allows, measured in one run.

The archive (``benchmarks/archive.py``): 12 yearly mosaics, 6 bands int16, 8192 by 8192 pixels,
COG in blocks of 512, deflate with predictor 2, holes of nodata. Chips of 64 by 64 pixels, 6 bands
and 12 years are cut at 100 to 50,000 random sites and written to Zarr; "aligned" ones are pixels
of the mosaics, "reprojected" ones are in the next UTM zone at positions within pixels (bilinear).
Every measurement is a process of its own. The ratio comes first, by processor seconds (by the
wall in brackets), then its target. The peers keep their chips in memory; only ours are written.

    python benchmarks/ingest.py                      # all rows; makes the archive if need be
    python benchmarks/ingest.py --quick              # mosaics of 2048 pixels, fewer sites
    python benchmarks/ingest.py --profile            # and where the rest of the time goes
    python benchmarks/ingest.py --rows peers limits  # some rows only
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import ingest_rows
from archive import BANDS, CHIP, Archive, default_folder

ROWS: Final = ("limits", "peers", "sites", "plan")
KINDS: Final = {True: "aligned", False: "reprojected"}
_GIB: Final = 2**30
_MOST_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured."""

    side: int
    counts: tuple[int, ...]
    headline: int
    memory: int
    planned: int
    odc_sites: int
    loop_sites: int


FULL: Final = Scale(8192, (100, 1_000, 10_000, 50_000), 10_000, 1_000, 100_000, 8, 60)
QUICK: Final = Scale(2048, (50, 300), 300, 50, 10_000, 1, 12)


@dataclass(slots=True)
class Bench:
    """Runs each measurement once, in a process of its own, and remembers it."""

    archive: Archive
    scale: Scale
    threads: int
    scratch: Path
    done: dict[str, ingest_rows.Record] = field(default_factory=dict)

    def run(self, kind: str, **arguments: Any) -> ingest_rows.Record:
        """Run a function of ``ingest_rows`` and return its record."""
        task = json.dumps(
            {
                "kind": kind,
                "archive": {**asdict(self.archive), "folder": str(self.archive.folder)},
                "arguments": arguments,
            }
        )
        if task not in self.done:
            with tempfile.TemporaryDirectory(dir=self.scratch) as folder:
                command = [sys.executable, __file__, "--measure", task, "--scratch", folder]
                if subprocess.run(command, check=False).returncode:
                    raise SystemExit(f"{kind} {arguments} failed.")
                answer = (Path(folder) / "answer.json").read_text(encoding="utf-8")
            self.done[task] = json.loads(answer)
        return self.done[task]

    def verdict(self, value: float, target: float, unit: str = "", *, least: bool = True) -> str:
        """Say the target, and at its own scale whether it is met."""
        said = f"target {'>=' if least else '<='} {target:g}{unit}"
        if (self.scale.side, self.scale.headline) != (FULL.side, FULL.headline):
            return said
        met = value >= target if least else value <= target
        return f"{said}, {'met' if met else 'MISSED'}"

    def ours(self, n: int, aligned: bool) -> ingest_rows.Record:
        """Build the cube."""
        return self.run("ours", n=n, aligned=aligned)

    def decode(self, n: int, aligned: bool) -> ingest_rows.Record:
        """Decode the blocks."""
        return self.run("decode_limit", n=n, aligned=aligned, threads=self.threads)

    def write(self, n: int) -> ingest_rows.Record:
        """Compress and write the chips, in the way the cube of the headline is."""
        codec = self.ours(self.scale.headline, True)["codec"]
        return self.run("write_limit", n=n, threads=self.threads, codec=codec)


def measure(task: str, scratch: Path) -> None:
    """Run one measurement here and leave its numbers in ``scratch``."""
    given = json.loads(task)
    given["archive"]["folder"] = Path(given["archive"]["folder"])
    function = getattr(ingest_rows, given["kind"])
    arguments = given["arguments"]
    if given["kind"] in ("ours", "profile", "write_limit"):
        arguments["scratch"] = scratch
    record = function(Archive(**given["archive"]), **arguments)
    (scratch / "answer.json").write_text(json.dumps(record), encoding="utf-8")


def ratio(high: ingest_rows.Record, low: ingest_rows.Record, times: float = 1.0) -> str:
    """Write a ratio of processor seconds, and in brackets that of the wall."""
    return f"{high['cpu'] / low['cpu'] * times:8.2f} ({high['wall'] / low['wall'] * times:.2f})"


def codec_name(codec: ingest_rows.Record | None) -> str:
    """Write how chips are compressed."""
    return f"{codec['cname']} {codec['clevel']}, {codec['shuffle']}" if codec else "not compressed"


def print_limits(bench: Bench) -> None:
    n = bench.scale.headline
    for aligned, target in ((True, 0.6), (False, 0.35)):
        own, decode, write = bench.ours(n, aligned), bench.decode(n, aligned), bench.write(n)
        physics = {k: decode[k] + write[k] for k in ("cpu", "wall")}
        share = decode["cpu"] / own["cpu"]
        print(
            f"{ratio(decode, own)}  of the decode limit, {KINDS[aligned]}, {n:,} sites "
            f"[{bench.verdict(share, target)}]: {decode['blocks']:,.0f} blocks decoded once in "
            f"{decode['cpu']:.1f} CPU s, ours {own['cpu']:.1f}"
        )
        print(
            f"{ratio(physics, own)}  of the decode and write limit: compressing int16 chips "
            f"({codec_name(own['codec'])}) and writing them, {write['written'] / 1e9:.2f} GB, "
            f"takes {write['cpu']:.1f} CPU s alone; ours wrote {own['written'] / 1e9:.2f} GB",
            flush=True,
        )


def print_peers(bench: Bench) -> None:
    n = bench.scale.headline
    for aligned in KINDS:
        own = bench.ours(n, aligned)
        odc = bench.run("odc_stac", n=n, aligned=aligned, sample=bench.scale.odc_sites)
        print_peer(bench, f"odc-stac site by site, {KINDS[aligned]}", own, odc, 150.0)
    own = bench.ours(n, True)
    loops = {
        kept: bench.run("window_loop", n=n, sample=bench.scale.loop_sites, keep_open=kept)
        for kept in (True, False)
    }
    for kept, loop in loops.items():
        how = "kept open" if kept else "opened for each site"
        print_peer(bench, f"rasterio window loop, files {how}, aligned", own, loop, 25.0)


def print_peer(
    bench: Bench, name: str, own: ingest_rows.Record, peer: ingest_rows.Record, target: float
) -> None:
    n = bench.scale.headline
    times = n / peer["sites"]
    aim = bench.verdict(peer["cpu"] / own["cpu"] * times, target)
    print(
        f"{ratio(peer, own, times)}  times {name}, {n:,} sites "
        f"[{aim}]: ours {n / own['cpu']:.1f} sites "
        f"a CPU second, it {peer['sites'] / peer['cpu']:.2f} (on {peer['sites']:.0f} sites)",
        flush=True,
    )


def print_sites(bench: Bench) -> None:
    """Print time and memory against the number of sites."""
    few, many = bench.scale.memory, max(bench.scale.counts)
    for aligned in KINDS:
        low, high = bench.ours(few, aligned), bench.ours(many, aligned)
        peak = high["peak"] / _GIB
        print(
            f"{high['peak'] / low['peak']:8.2f}  of the peak memory at {few:,} sites is that at "
            f"{many:,}, {KINDS[aligned]}: {peak:.2f} GiB, all threads together "
            f"[{bench.verdict(peak, 1.0, ' GiB', least=False)}], {low['peak'] / _GIB:.2f} GiB at "
            f"{few:,}, {low['before'] / _GIB:.2f} GiB before the first pixel"
        )
        print_growth(bench, aligned)
        print(
            "    sites   CPU s  wall s  sites/CPU s  blocks  decode CPU s  of decode  of decode "
            "and write  GB written  peak GiB"
        )
        for n in bench.scale.counts:
            own, decode, write = bench.ours(n, aligned), bench.decode(n, aligned), bench.write(n)
            both = (decode["cpu"] + write["cpu"]) / own["cpu"]
            print(
                f"{n:9,} {own['cpu']:7.1f} {own['wall']:7.1f} {n / own['cpu']:12.1f} "
                f"{decode['blocks']:7,.0f} {decode['cpu']:13.1f} "
                f"{decode['cpu'] / own['cpu']:10.2f} {both:20.2f} {own['written'] / 1e9:11.2f} "
                f"{own['peak'] / _GIB:9.2f}",
                flush=True,
            )


def print_growth(bench: Bench, aligned: bool) -> None:
    """Print how the time grows: with the blocks that are touched first, then with the bytes."""
    counts = bench.scale.counts
    for few, many in pairwise(counts):
        low, high = bench.ours(few, aligned), bench.ours(many, aligned)
        print(
            f"{ratio(high, low, few / many)}  of linear growth from {few:,} to {many:,} sites",
            flush=True,
        )


def print_plan(bench: Bench) -> None:
    n = bench.scale.planned
    record = bench.run("plan", n=n)
    target = _MOST_SECONDS
    aim = bench.verdict(record["wall"], target, " s", least=False)
    print(
        f"{record['wall'] / target:8.2f}  of {target:g} s to plan {n:,} sites by "
        f"{bench.archive.years} periods [{aim}]: "
        f"{record['wall']:.2f} s, {record['cpu']:.2f} CPU s",
        flush=True,
    )


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, help="the archive; made there if it is not")
    parser.add_argument(
        "--scratch", type=Path, help="for the cubes, up to 30 GB; default: see --folder"
    )
    parser.add_argument("--quick", action="store_true", help="small mosaics, under a minute")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--profile-sites", type=int, help="default: as the ratios")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=ROWS)
    parser.add_argument("--sites", type=int, nargs="+", help="instead of 100 to 50,000")
    parser.add_argument("--threads", type=int, default=2, help="of the limits")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def _scale(options: argparse.Namespace) -> Scale:
    scale = QUICK if options.quick else FULL
    if not options.sites:
        return scale
    counts = tuple(sorted(options.sites))
    headline = max([n for n in counts if n <= scale.headline], default=counts[0])
    return Scale(
        scale.side, counts, headline, min(counts, key=lambda n: abs(n - scale.memory)),
        scale.planned, scale.odc_sites, scale.loop_sites,
    )  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    if options.measure:
        measure(options.measure, options.scratch)
        return
    scale = _scale(options)
    archive = Archive(options.folder or default_folder(scale.side), scale.side)
    archive.ensure(options.threads)
    scratch = options.scratch or archive.folder
    needed = max(scale.counts) * archive.years * len(BANDS) * CHIP**2 * 2
    if shutil.disk_usage(scratch).free < needed:
        raise SystemExit(f"{scratch} has less than {needed / 1e9:.0f} GB free: give --scratch.")
    bench = Bench(archive, scale, options.threads, scratch)
    print(
        f"{archive.years} mosaics of {archive.side} by {archive.side} pixels, "
        f"{archive.pixel_bytes / 1e9:.2f} GB in {archive.stored_bytes / 1e9:.2f} GB of files; "
        f"chips of {CHIP} by {CHIP}; {platform.machine()}, {os.cpu_count()} cores, "
        f"load {os.getloadavg()[0]:.1f}, {options.threads} threads; targets are for mosaics of "
        f"{FULL.side} pixels and {FULL.headline:,} sites",
        flush=True,
    )
    for name in options.rows:
        {"limits": print_limits, "peers": print_peers, "sites": print_sites, "plan": print_plan}[
            name
        ](bench)
    if options.profile:
        n = options.profile_sites or scale.headline
        for aligned in KINDS:
            print(f"profile, {KINDS[aligned]}, {n:,} sites:", flush=True)
            bench.run("profile", n=n, aligned=aligned, lines=25)


if __name__ == "__main__":
    main()
