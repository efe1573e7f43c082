"""PyTorch as a peer of tests/bench/scaling.py: one rank of DistributedDataParallel on gloo.

    torch_ddp.py RANK RANKS ADDRESS PORT THREADS PLAN GLOBAL_BATCH SIZE STEPS

VGG16 without top in channels_last, global average pooling, Linear(10), SGD with momentum: the steps of `thaw bench`. One rank
trains without DDP. Rank 0 prints {"seconds": [of each step], "version"} as JSON; the first two steps are not counted.
"""
import json
import sys
import time

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

BLOCKS = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))


class Network(nn.Module):
    def __init__(self, plan):
        super().__init__()
        parts, channels = [], 3
        for b, (n, filters) in enumerate(BLOCKS):
            for _ in range(n):
                conv = nn.Conv2d(channels, filters, 3, padding=1)
                trains = plan == "everything" or (plan == "late" and b == 4)
                for p in conv.parameters():
                    p.requires_grad = trains
                parts += [conv, nn.ReLU(inplace=True)]
                channels = filters
            parts.append(nn.MaxPool2d(2))
        self.base, self.head = nn.Sequential(*parts), nn.Linear(channels, 10)

    def forward(self, x):
        return self.head(self.base(x).mean((2, 3)))


def main():
    rank, ranks, address, port, threads = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4], int(sys.argv[5])
    plan, batch, size, steps = sys.argv[6], int(sys.argv[7]), int(sys.argv[8]), int(sys.argv[9])
    torch.set_num_threads(threads)
    torch.manual_seed(1)
    model = Network(plan).to(memory_format=torch.channels_last)
    mine = batch * (rank + 1) // ranks - batch * rank // ranks
    x = torch.rand(mine, 3, size, size).to(memory_format=torch.channels_last)
    y = torch.randint(0, 10, (mine,))
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 1e-6, momentum=0.9)
    if ranks > 1:
        dist.init_process_group("gloo", init_method="tcp://%s:%s" % (address, port), rank=rank, world_size=ranks)
        model = nn.parallel.DistributedDataParallel(model, gradient_as_bucket_view=True)
    seconds = []
    for _ in range(steps + 2):
        began = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        seconds.append(time.perf_counter() - began)
    if rank == 0:
        print(json.dumps({"seconds": seconds[2:], "version": torch.__version__}), flush=True)
    if ranks > 1:
        dist.barrier()
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
