"""Filter recommendations, follow a session, and change the catalogue without training.

python examples/add_items_and_filters.py
"""

import argparse

import genrec

HISTORY = ["Toy Story (1995)", "GoldenEye (1995)"]


def show(heading: str, items: list[genrec.Recommendation]) -> None:
    print(f"\n{heading}")
    for item in items:
        print(f"{item.rank:>3}. {item.title}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="ml-100k", help="known name, or a prepared folder")
    parser.add_argument("--backbone", default="smollm2-135m", help="language model to start from")
    parser.add_argument("--minutes", type=float, default=5, help="time for training")
    args = parser.parse_args()

    split = genrec.leave_last_out(genrec.load_dataset(args.data))
    model = genrec.GenRec(args.backbone)
    model.fit(split.train, valid=split.valid, minutes=args.minutes)

    # A filter is a condition on the item table. The answer is still the exact best among the rest.
    dramas = model.catalogue.mask(where="genres LIKE '%Drama%'", block=["Titanic (1997)"])
    show("Dramas, without Titanic", model.recommend(HISTORY, k=5, candidates=dramas))

    # A session keeps what the model has read, so each further title costs little.
    session = model.session(HISTORY)
    session.add("Fargo (1996)")
    best = session.recommend(k=5)
    show("After Fargo, too", best)
    for reason in session.explain(best[0].title)[:3]:
        print(f"     {reason.title} moved the log-probability by {reason.effect:+.2f}")

    # A new item borrows its statistics from a known one and can be recommended at once.
    model.add_items(["Toy Story 2 (1999)"], ["new-1"], like=["Toy Story (1995)"])
    only = model.catalogue.mask(allow=["Toy Story 2 (1999)", "Fargo (1996)"])
    show("Of these two", model.recommend(HISTORY, k=2, candidates=only))

    # A removed item is no longer recommended, but histories may still contain it.
    model.remove_items(["Fargo (1996)"])
    show("Without Fargo", model.recommend(HISTORY, k=5))
    model.restore_items(["Fargo (1996)"])


if __name__ == "__main__":
    main()
