"""Builds small archives in ImageNet's format: training tar of tars, validation tar, development kit, bounding boxes.

Run: python3 fake_imagenet.py IMAGES DEVKIT_FOLDER OUT [CLASSES]

IMAGES contains <wnid>_<anything>.JPEG or <wnid>/*. DEVKIT_FOLDER contains the real meta.mat and
ILSVRC2012_validation_ground_truth.txt, and ilsvrc2012_id_map.tsv. The first CLASSES WNIDs (default 20) get up to 12
training images each. Each of them also gets up to 3 validation images, which have the first numbers of that class in
the ground truth.
"""

import io
import sys
import tarfile
from pathlib import Path

XML = """<annotation><folder>{wnid}</folder><filename>{stem}</filename><size><width>{w}</width><height>{h}</height><depth>3</depth>
</size><object><name>{wnid}</name><bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object>
</annotation>"""


def add(tar, name, data):
    info = tarfile.TarInfo(name)
    info.size, info.mtime = len(data), 1_300_000_000
    tar.addfile(info, io.BytesIO(data))


def box(n):
    return 1 + n % 5, 2 + n % 7, 40 + n % 11, 50 + n % 13


def main():
    images, kit, out = (Path(p) for p in sys.argv[1:4])
    most = int(sys.argv[4]) if len(sys.argv) > 4 else 20
    out.mkdir(parents=True, exist_ok=True)
    rows = [line.split("\t") for line in (kit / "ilsvrc2012_id_map.tsv").read_text().splitlines()[1:]]
    wnid_of_id = {int(r[0]): r[1] for r in rows}
    files = {}
    for path in sorted(images.rglob("*")):
        wnid = path.name.split("_")[0] if path.parent == images else path.parent.name
        if path.is_file() and wnid in wnid_of_id.values():
            files.setdefault(wnid, []).append(path.read_bytes())
    wnids = sorted(files)[:most]
    number = 0
    with tarfile.open(out / "ILSVRC2012_img_train.tar", "w") as train, tarfile.open(out / "ILSVRC2012_bbox_train_v2.tar.gz", "w:gz") as boxes:
        for wnid in wnids:
            inner = io.BytesIO()
            with tarfile.open(fileobj=inner, mode="w") as tar:
                for i, data in enumerate(files[wnid][:12]):
                    stem = f"{wnid}_{i + 1}"
                    add(tar, f"{stem}.JPEG", data)
                    number += 1
                    if i % 2 == 0:
                        x0, y0, x1, y1 = box(number)
                        xml = XML.format(wnid=wnid, stem=stem, w=500, h=375, x0=x0, y0=y0, x1=x1, y1=y1)
                        add(boxes, f"{wnid}/{stem}.xml", xml.encode())
            add(train, f"{wnid}.tar", inner.getvalue())
    truth = [int(line) for line in (kit / "ILSVRC2012_validation_ground_truth.txt").read_text().split()]
    count = dict.fromkeys(wnids, 0)
    with tarfile.open(out / "ILSVRC2012_img_val.tar", "w") as val, tarfile.open(out / "ILSVRC2012_bbox_val_v3.tgz", "w:gz") as boxes:
        for i, id_ in enumerate(truth):
            wnid = wnid_of_id[id_]
            if wnid in count and count[wnid] < 3:
                stem = f"ILSVRC2012_val_{i + 1:08}"
                add(val, f"{stem}.JPEG", files[wnid][-1 - count[wnid] % len(files[wnid])])
                x0, y0, x1, y1 = box(i)
                add(boxes, f"val/{stem}.xml", XML.format(wnid=wnid, stem=stem, w=500, h=375, x0=x0, y0=y0, x1=x1, y1=y1).encode())
                count[wnid] += 1
    with tarfile.open(out / "ILSVRC2012_devkit_t12.tar.gz", "w:gz") as tar:
        for name in ["meta.mat", "ILSVRC2012_validation_ground_truth.txt"]:
            add(tar, f"ILSVRC2012_devkit_t12/data/{name}", (kit / name).read_bytes())


main()
