from sightline.report import Column, Heading, RunData, Section, Table


def hesitant(run: RunData) -> Section | None:
    """The mistakes whose confidence is lowest: there, a little more training may be enough."""
    p = run.predictions
    wrong = [index for index in p.confidence.argsort(kind="stable") if not p.correct[index]][:5]
    if not wrong:
        return None
    rows = tuple(
        (f"image {index}", p.class_names[p.predicted[index]], f"{100 * p.confidence[index]:.0f} %")
        for index in wrong
    )
    columns = (Column("Image"), Column("Predicted"), Column("Confidence", numeric=True))
    table = Table("The least confident first.", columns, rows)
    return Section(Heading("Hesitant mistakes", "hesitant", "Mistakes"), "Where did it hesitate?", (table,))
