"""Train a CNN on handwritten digits, and watch the curvature that its optimizer meets.

python examples/monitor_training.py                          to run.jsonl, within 10 % of training's time
python examples/monitor_training.py --tensorboard runs/one   and curves for `tensorboard --logdir runs`
"""

import argparse

import torch
from digits import cnn, digits
from torch import nn

import hessdiag

BATCH = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--log", default="run.jsonl", help="a new file of JSON lines")
    parser.add_argument("--tensorboard", help="folder for TensorBoard")
    given = parser.parse_args()

    torch.manual_seed(0)
    x, y = digits()
    model = cnn()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    problem = hessdiag.Problem(model, data=[(x[:BATCH], y[:BATCH])], loss="ce")  # the live model, one fixed batch
    with hessdiag.Monitor(
        problem, every=50, budget="10%", optimizer=optimizer, log=given.log, tensorboard=given.tensorboard
    ) as monitor:
        for _ in range(given.steps):
            pick = torch.randint(len(x), (BATCH,))
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[pick]), y[pick]).backward()
            optimizer.step()
            record = monitor.step()
            if record is not None and record.value("sharpness") is not None:
                curvature, ratio = record.value("lambda_max"), record.value("sharpness")
                print(
                    f"step {record.step}: loss {record.value('loss'):.3f}, lambda_max {curvature:.2f}, "
                    f"{ratio:.0%} of the threshold, {record.products} products"
                )
    print(f"looks took {monitor.records[-1].share:.1%} of training's time")


if __name__ == "__main__":
    main()
