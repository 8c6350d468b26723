"""Shards in Lightning: a small network learns poses from crops. Needs neither skelfit nor a body model.

python examples/lightning_loader.py shards/demo-crops    (of skelfit convert --image-mode crop: one size)
"""

import sys
from pathlib import Path

import lightning
import torch
import webdataset


class Shards(lightning.LightningDataModule):
    def train_dataloader(self) -> torch.utils.data.DataLoader[list[torch.Tensor]]:
        tars = sorted(map(str, Path(sys.argv[1]).glob("*.tar")))
        dataset = webdataset.WebDataset(
            tars, shardshuffle=len(tars), nodesplitter=webdataset.split_by_node, empty_check=False
        )
        dataset = dataset.shuffle(1000).decode("torchrgb").to_tuple("jpg", "label.npy").batched(8)
        return torch.utils.data.DataLoader(dataset, batch_size=None, num_workers=2)


class Poses(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        pool, flat = torch.nn.AdaptiveAvgPool2d(8), torch.nn.Flatten()
        self.network = torch.nn.Sequential(pool, flat, torch.nn.Linear(3 * 8 * 8, 46))

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], _: int) -> torch.Tensor:
        images, labels = batch  # skel_poses are the first 46 numbers of a label: see schema.json
        loss = torch.nn.functional.l1_loss(self.network(images), labels[:, :46])
        self.log("loss", loss, on_step=False, on_epoch=True, batch_size=len(images))
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), 1e-3)


if __name__ == "__main__":
    trainer = lightning.Trainer(
        max_epochs=2, logger=False, enable_checkpointing=False, enable_progress_bar=False
    )
    trainer.fit(Poses(), Shards())
    print(trainer.global_step, "steps, loss", trainer.callback_metrics["loss"].item())
