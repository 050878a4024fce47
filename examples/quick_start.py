"""Train on MovieLens-100K for a few minutes, then evaluate, save, load and recommend.

    python examples/quick_start.py

The first run downloads the data set and the language model.
"""

import argparse

import genrec


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="ml-100k", help="known name, or a prepared folder")
    parser.add_argument("--backbone", default="smollm2-135m", help="language model to start from")
    parser.add_argument("--minutes", type=float, default=5, help="time for training")
    parser.add_argument("--out", default="runs/quick-start", help="folder for the trained model")
    args = parser.parse_args()

    # The last item of each user is the test, the one before it is for validation.
    data = genrec.load_dataset(args.data)
    split = genrec.leave_last_out(data)

    model = genrec.GenRec(args.backbone)
    model.fit(split.train, valid=split.valid, minutes=args.minutes)

    # Every test user, ranked against the whole catalogue.
    print(genrec.evaluate(model, split.test, k=(5, 10)).table())

    # A saved model needs neither the data set nor the training code.
    model.save_pretrained(args.out)
    model = genrec.GenRec.from_pretrained(args.out)
    for item in model.recommend(["Toy Story (1995)", "GoldenEye (1995)"], k=5):
        print(f"{item.rank}. {item.title}  {item.probability:.2%}")


if __name__ == "__main__":
    main()
