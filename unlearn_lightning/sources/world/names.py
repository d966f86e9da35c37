"""The words of the world: who acts and with what things. Stages and base text share no name and no item.

For example "Mia" and "shells" occur in word problems only, "Olga" and "nails" in the base text only.
"""

PEOPLE = (
    "Mia", "Ben", "Zoe", "Sam", "Ada", "Leo", "Ivy", "Max", "Eva", "Tom",
    "Amy", "Dan", "Lily", "Jack", "Nora", "Paul", "Rosa", "Hugo", "Anna", "Carl",
)  # fmt: skip
ITEMS = (
    "apples", "books", "cards", "shells", "coins", "stamps", "pens", "cakes", "stones", "buttons",
    "eggs", "balls", "kites", "rings", "maps", "plums", "cups", "keys", "toys", "seeds",
)  # fmt: skip

BASE_PEOPLE = (
    "Olga", "Finn", "Ruth", "Omar", "Kate", "Nils", "Vera", "Hans", "Jane", "Igor",
    "Dora", "Luke", "Mary", "Abel", "Gina", "Fred",
)  # fmt: skip
BASE_ITEMS = (
    "nails", "ropes", "lamps", "pears", "nuts", "hats", "boats", "bells", "chairs", "spoons",
    "shoes", "leaves", "ducks", "bricks", "socks", "drums",
)  # fmt: skip

AUTHOR_FIRST = (
    "Alva", "Brisa", "Corin", "Delka", "Edrin", "Farah", "Galen", "Hesper", "Ilvo", "Jorin",
    "Kaya", "Lorin", "Mirel", "Nadim", "Orla", "Pavel", "Quill", "Runa", "Soren", "Talia",
)  # fmt: skip
AUTHOR_LAST = (
    "Amsel", "Brook", "Castel", "Dorn", "Elster", "Falk", "Garden", "Holm", "Imber", "Jasper",
    "Kestrel", "Linden", "Marsh", "North", "Oaken", "Perch", "Reed", "Stone", "Thorn", "Vale",
)  # fmt: skip
BASE_AUTHOR_FIRST = ("Bodo", "Celia", "Doran", "Etta", "Gunnar", "Hanne", "Jola", "Klara", "Milo", "Petra", "Rasmus", "Sonja")
BASE_AUTHOR_LAST = ("Abbot", "Berg", "Crane", "Dell", "Eland", "Frost", "Hill", "Lake", "Moor", "Pike", "Rook", "Swan")
