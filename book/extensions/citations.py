"""Label the entries of the bibliography as the text cites them: Vu et al., 2019."""

import unicodedata

from pybtex.plugin import register_plugin
from pybtex.style.formatting.alpha import Style as AlphaStyle
from pybtex.style.labels import BaseLabelStyle
from pybtex.style.sorting import BaseSortingStyle

AUTHORS = 2  # so many are named; of more, the first


def setup(app):
    """Give the style a name, for `bibtex_default_style`."""
    register_plugin("pybtex.style.formatting", "author_year", AuthorYearStyle)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


class AuthorYearLabels(BaseLabelStyle):
    """Authors and year, as `bibtex_reference_style: author_year` has them."""

    def format_labels(self, sorted_entries):
        """Give the label of each entry."""
        return [label_of(entry) for entry in sorted_entries]


class AuthorYearOrder(BaseSortingStyle):
    """In the order of the labels, in which Çiçek is found at C."""

    def sorting_key(self, entry):
        """Give the label without accents."""
        letters = unicodedata.normalize("NFKD", label_of(entry))
        return "".join(one for one in letters if not unicodedata.combining(one)).casefold()


class AuthorYearStyle(AlphaStyle):
    """Named and sorted by authors and year."""

    default_label_style = AuthorYearLabels
    default_sorting_style = AuthorYearOrder


def label_of(entry):
    """Give the authors of a work and its year."""
    names = [str(name) for name in map(last_name, entry.persons.get("author", []))]
    shown = " and ".join(names) if len(names) <= AUTHORS else f"{names[0]} et al."
    return f"{shown}, {entry.fields['year']}"


def last_name(person):
    """Give a person's last name, with its particles."""
    return " ".join(map(str, person.rich_prelast_names + person.rich_last_names))
