"""Packs the program as a wheel, which pip puts where the scripts of the environment are.

usage: wheel.py BINARY VERSION CPU DIRECTORY

A wheel with a program and no Python in it is a zip archive with three files of text (PEP 427); a build tool would compile the program a second time.
The program is static, so every Linux of its processor may have it: the tag names glibc and musl alike.
"""

import base64
import hashlib
import os
import sys
import time
import zipfile

NAME = "phalanx_server"
SUMMARY = "Puts any server on every core, and never drops a request"


def metadata(version):
    return f"""Metadata-Version: 2.1
Name: phalanx-server
Version: {version}
Summary: {SUMMARY}
License: MIT OR Apache-2.0
Home-page: https://github.com/phalanx-rs/phalanx
Requires-Python: >=3.7
Description-Content-Type: text/markdown

`phalanx run -- gunicorn app:app`, `phalanx run app.py`: the command of https://github.com/phalanx-rs/phalanx, installed by pip.
"""


def wheel(tags):
    lines = ["Wheel-Version: 1.0", "Generator: phalanx", "Root-Is-Purelib: false"]
    return "\n".join(lines + [f"Tag: {tag}" for tag in tags]) + "\n"


def main():
    binary, version, cpu, directory = sys.argv[1:]
    platforms = [f"manylinux_2_17_{cpu}", f"manylinux2014_{cpu}", f"musllinux_1_1_{cpu}"]
    tags = [f"py3-none-{platform}" for platform in platforms]
    info = f"{NAME}-{version}.dist-info"
    with open(binary, "rb") as file:
        program = file.read()
    files = [
        (f"{NAME}-{version}.data/scripts/phalanx", program, 0o755),
        (f"{info}/METADATA", metadata(version).encode(), 0o644),
        (f"{info}/WHEEL", wheel(tags).encode(), 0o644),
    ]
    for name in ("LICENSE-MIT", "LICENSE-APACHE"):
        with open(name, "rb") as file:
            files.append((f"{info}/licenses/{name}", file.read(), 0o644))
    record = f"{info}/RECORD"
    lines = []
    for name, content, _ in files:
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        lines.append(f"{name},sha256={digest},{len(content)}")
    lines.append(f"{record},,")
    files.append((record, ("\n".join(lines) + "\n").encode(), 0o644))
    path = os.path.join(directory, f"{NAME}-{version}-py3-none-{'.'.join(platforms)}.whl")
    # Zip knows no time before 1980.
    made = max(int(os.environ.get("SOURCE_DATE_EPOCH", "0")), 315532800)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content, mode in files:
            entry = zipfile.ZipInfo(name, time.gmtime(made)[:6])
            entry.external_attr = (0o100000 | mode) << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, content)
    print(path)


main()
