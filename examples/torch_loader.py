"""Shards in plain torch and webdataset: batches of crops, poses and keypoints. Needs neither skelfit nor a body model.

python examples/torch_loader.py shards/demo-crops    (of skelfit convert --image-mode crop: all images have one size)
"""

import json
import sys
from pathlib import Path
from typing import Any

import webdataset
from torch.utils.data import DataLoader

folder = Path(sys.argv[1])
parts = {f["name"]: f for f in json.loads((folder / "schema.json").read_text())["fields"]}


def part(labels: Any, name: str) -> Any:
    f = parts[name]
    return labels[:, f["offset"] : f["offset"] + f["size"]].reshape(-1, *f["shape"])


if __name__ == "__main__":
    tars = sorted(map(str, folder.glob("*.tar")))
    dataset = webdataset.WebDataset(tars, shardshuffle=len(tars), empty_check=False)
    dataset = dataset.shuffle(1000).decode("torchrgb").to_tuple("jpg", "label.npy").batched(8)
    for images, labels in DataLoader(dataset, batch_size=None, num_workers=2):
        poses, keypoints = part(labels, "skel_poses"), part(labels, "gtkps")
        print("images", *images.shape, "poses", *poses.shape, "keypoints", *keypoints.shape)
