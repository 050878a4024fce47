"""Make a data set from DataFrames of your own, train on it and recommend.

    python examples/your_dataframe.py

The frames here are Polars; pandas frames work in the same way.
"""

import argparse
import random

import polars as pl

import genrec

PRODUCTS = [
    *("Espresso beans", "Filter coffee", "Milk jug", "Coffee grinder", "Paper filters"),
    *("Green tea", "Black tea", "Teapot", "Tea strainer", "Honey"),
]


def made_up_log(users: int = 60) -> pl.DataFrame:
    """Some customers buy for coffee and some for tea, in no fixed order."""
    dice, rows = random.Random(0), []
    for user in range(users):
        shelf = range(5) if user % 2 else range(5, 10)
        for hour, item in enumerate(dice.sample(shelf, k=4)):
            rows.append((f"customer-{user}", f"sku-{item}", 3600 * hour + user))
    return pl.DataFrame(rows, schema=["customer", "sku", "sold_at"], orient="row")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="smollm2-135m", help="language model to start from")
    parser.add_argument("--minutes", type=float, default=1, help="time for training")
    args = parser.parse_args()

    # Both frames have the item's id; the second one has its title.
    skus = [f"sku-{number}" for number in range(len(PRODUCTS))]
    items = pl.DataFrame({"sku": skus, "product": PRODUCTS})
    columns = {"user": "customer", "item": "sku", "timestamp": "sold_at", "title": "product"}
    data = genrec.Dataset.from_frames(made_up_log(), items, **columns, name="shop")

    split = genrec.leave_last_out(data)
    model = genrec.GenRec(args.backbone)
    model.fit(split.train, valid=split.valid, minutes=args.minutes)

    # A history may name its items by title or by id.
    for history in (["Espresso beans", "Milk jug"], ["sku-5", "sku-7"]):
        best = model.recommend(history, k=3)
        print(history, "->", [item.title for item in best])


if __name__ == "__main__":
    main()
