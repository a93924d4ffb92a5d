"""Prove that the library runs on a plain x86-64 processor until it has asked what the processor can do.

    python tools/check_baseline.py <unstripped library>

Every instruction beyond x86-64's baseline (SSE3 and later, AVX, FMA, BMI, AVX-512, AMX) must stand in a
function whose symbol names an instruction-set token, because such a function is only reachable with that
token in hand and a token exists only on a processor that has the feature. Inlining cannot hide a
function: it moves the instructions to the caller, whose name is then the one that is tested.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

# A token or a target-feature function says its instruction set in its own name.
DISPATCHED = re.compile(r"avx2|avx512", re.IGNORECASE)

# Functions of others that ask the processor themselves before they use what they found.
ALLOWED = {
    r"memchr.*(avx2|sse42|ssse3)": "the memchr crate detects at run time",
    r"std_detect": "run-time detection itself (cpuid, xgetbv)",
}

BEYOND = re.compile(
    r"""
      v(?!er[rw]$|mcall$|mfunc$)[a-z0-9]+                            # VEX, EVEX: AVX, FMA, F16C, AVX-512
    | k(mov|and|andn|or|xor|xnor|not|add|test|ortest|shift[lr]|unpck)[bwdq]{1,2}  # mask registers
    | t(ile|dp|cmm)[a-z0-9]+                                               # AMX
    | addsubp[sd] | h(add|sub)p[sd] | lddqu | movddup | movs[hl]dup        # SSE3
    | pshufb | ph(add|sub)\w+ | palignr | pabs[bwd] | psign[bwd] | pmulhrsw | pmaddubsw          # SSSE3
    | p?blend\w+ | ptest | round[ps][sd] | pm(in|ax)(s[bd]|u[wd]) | pmul(ld|dq) | dpp[sd]         # SSE4.1
    | (insert|extract)ps | p(insr|extr)[bdq] | pcmp(eq|gt)q | packusdw | pmov[sz]x\w+
    | mpsadbw | phminposuw | movntdqa
    | pcmp[ei]str[im] | crc32\w? | popcnt\w?                               # SSE4.2
    | andn | bextr | bls(i|r|msk) | bzhi | mulx | p(dep|ext) | rorx | s(ar|hl|hr)x | lzcnt\w?     # BMI, LZCNT
    | movbe\w? | aes(enc|dec|imc|keygen)\w* | pclmul\w+ | sha(1|256)\w+
    """,
    re.VERBOSE,
)
FUNCTION = re.compile(r"^[0-9a-f]+ <(.+)>:$")
INSTRUCTION = re.compile(r"^\s+[0-9a-f]+:\t(?:(?:lock|rep[nz]*|notrack|bnd|data16|cs|ds|\{\w+\}) )*(\S+)")


def disassembly(library: Path) -> tuple[Counter[str], dict[str, str], int]:
    """Instructions beyond the baseline per function, an example of each, and the number of functions seen."""
    beyond: Counter[str] = Counter()
    example: dict[str, str] = {}
    functions, current = 0, "?"
    command = ["objdump", "-d", "--no-show-raw-insn", str(library)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if start := FUNCTION.match(line):
                current, functions = start[1], functions + 1
            elif (found := INSTRUCTION.match(line)) and BEYOND.fullmatch(found[1]):
                beyond[current] += 1
                example.setdefault(current, line.strip())
    if process.returncode:
        raise SystemExit(f"objdump failed on {library}")
    return beyond, example, functions


def main() -> int:
    library = Path(sys.argv[1])
    beyond, example, functions = disassembly(library)
    allowed = re.compile("|".join(ALLOWED))
    stray = [name for name in beyond if not DISPATCHED.search(name) and not allowed.search(name)]
    # Two ways to pass without having looked at anything: a stripped file, or one without fast kernels.
    if functions < 200:
        print(f"{library}: only {functions} named functions; build it with CARGO_PROFILE_RELEASE_STRIP=none")
        return 1
    for isa in ("avx2", "avx512"):
        if not any(isa in name.lower() for name in beyond):
            print(f"{library}: no {isa} kernel found, so this check would prove nothing")
            return 1
    for name in sorted(stray, key=lambda name: -beyond[name]):
        print(f"{name}: {beyond[name]} instruction(s) beyond x86-64, such as `{example[name]}`")
    dispatched = len(beyond) - len(stray)
    print(
        f"{library}: {functions} functions, {dispatched} dispatched use more than x86-64, {len(stray)} stray"
    )
    return int(bool(stray))


if __name__ == "__main__":
    sys.exit(main())
