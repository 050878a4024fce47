"""Compare GenRec with simple baselines on the same users, in one table.

    python examples/compare.py

Look at such a table before you decide that you need a language model.
"""

import argparse

import genrec
from genrec import baselines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="ml-100k", help="known name, or a prepared folder")
    parser.add_argument("--backbone", default="smollm2-135m", help="language model to start from")
    parser.add_argument("--minutes", type=float, default=5, help="time for training")
    args = parser.parse_args()

    split = genrec.leave_last_out(genrec.load_dataset(args.data))
    model = genrec.GenRec(args.backbone)
    model.fit(split.train, valid=split.valid, minutes=args.minutes)

    # Each baseline is fitted on the same training data, which takes seconds.
    models = [baselines.Popularity(), baselines.EASE(), baselines.Transitions(), model]
    print(genrec.compare(models, split).table())

    # Every recommender answers in the same way, the baselines too.
    ease = baselines.EASE().fit(split.train)
    for item in ease.recommend(["Toy Story (1995)"], k=5):
        print(item.rank, item.title)


if __name__ == "__main__":
    main()
