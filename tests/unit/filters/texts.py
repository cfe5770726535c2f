"""Texts that filters must keep, and texts that they must drop."""

LAW = (
    "(1) Der Vermieter hat die Mietsache dem Mieter in einem zum vertragsgemäßen Gebrauch geeigneten "
    "Zustand zu\n"
    "überlassen und sie während der Mietzeit in diesem Zustand zu erhalten.\n\n"
    "(2) Er hat die auf der Mietsache ruhenden Lasten zu tragen (§ 535 Abs. 1 Satz 3 BGB)."
)
SHORT_LAW = "Dieses Gesetz tritt am Tage nach der Verkündung in Kraft."
ARTICLE_DE = (
    "Am frühen Morgen verließ der Zug den Bahnhof von Lübeck, und die Reisenden sahen noch lange auf "
    "die Türme der Stadt zurück. Niemand sprach, denn die Nachricht vom Abend hatte alle erschreckt. "
    "Erst als der Schaffner die Karten verlangte, begann ein älterer Herr zu erzählen, was er gehört "
    "hatte. Das Schiff sei in der Nacht gesunken, doch man habe fast alle Menschen retten können.\n\n"
    "In Hamburg wartete bereits eine große Menge. Viele hielten Zeitungen in den Händen, andere "
    "fragten die Beamten nach Namen und Listen. Für die meisten endete der Tag mit einer guten "
    "Nachricht. Nur der Kapitän wurde noch gesucht, und seine Familie blieb bis in die Nacht am Kai, "
    "wo die Boote der Retter anlegten."
)
ARTICLE_EN = (
    "The library opened its doors on a cold morning in March, and the first visitors were two "
    "schoolchildren who had walked all the way from the harbour. They wanted to know whether the "
    "books could really be borrowed without money. When the librarian told them that they could, "
    "they asked for everything that had been written about whales.\n\n"
    "In the years that followed, the town grew around the building. New streets were named after "
    "writers, and the reading room became the place where most of the important decisions were made. "
    "It still stands today, with the same wooden tables and the same quiet light, although nobody "
    "remembers who planted the trees in front of it."
)
JA = "ja " * 500
_MENU = (
    "Startseite",
    "Über uns",
    "Aktuelles",
    "Produkte",
    "Warenkorb (0)",
    "Anmelden",
    "Registrieren",
    "Kontakt",
    "Impressum",
    "Datenschutz",
    "AGB",
    "Newsletter abonnieren",
    "Folgen Sie uns auf Facebook",
    "© 2024 Alle Rechte vorbehalten",
    "Nach oben",
)
NAVIGATION = "\n".join(_MENU * 3)
_LINKS = ("Startseite", "Produkte", "Kontakt", "Impressum", "Datenschutz", "Warenkorb", "Anmelden")
HTML_NAVIGATION = (
    '<nav class="main"><ul>'
    + "".join(f'<li class="item"><a href="/{name}.html" title="{name}">{name}</a></li>' for name in _LINKS)
    + "</ul></nav><p>Das ist der Inhalt der Seite, und er ist kurz. Die Seite hat mehr Tags als Text, was "
    "für die Sammlung von Texten nicht gut ist, weil sie aus dem Netz kommt und nicht bereinigt wurde.</p>"
)
BASE64 = (
    "Der Anhang der Nachricht ist ein Bild, das mit der Post des Herrn in der Nacht des Tages kam und für "
    "alle sichtbar war, die es in der Liste von ihm sehen konnten oder wollten und es dem Amt meldeten:\n"
    + (
        "iVBORw0KGgoAAAANSUhEUgAAAAUA7f3xk29QwLmZ0pR8tVbNc4YhJsE6uDqWgT1oXa5F\n"
        "q8K2jHfB3nYxZrT7Lm4sVpD9wGcEuQ0aWeR6tYhUiJkOlPzXcVbNmQwErTyUiOpAsDfG\n"
    )
    * 3
)
MOJIBAKE = ARTICLE_DE.encode().decode("latin-1")
MOJIBAKE_CP1252 = "Die Prüfung der Anträge erfolgt „unverzüglich“ – für alle Bürger." * 6
MOJIBAKE_CP1252 = MOJIBAKE_CP1252.encode().decode("cp1252", "replace")
MOJIBAKE_CP850 = ARTICLE_DE.encode().decode("cp850")
REPLACED = ARTICLE_DE.encode("latin-1").decode("utf-8", "replace")
LOST = ARTICLE_DE.encode("ascii", "replace").decode()
DUTCH = (
    "De vroege trein verliet het station van Groningen toen het nog donker was, en de reizigers "
    "keken lang naar de torens van de stad. Niemand sprak, want het nieuws van de avond had iedereen "
    "laten schrikken. Pas toen de conducteur om de kaartjes vroeg, begon een oudere heer te "
    "vertellen wat hij had gehoord. Het schip was in de nacht gezonken, maar bijna alle mensen "
    "konden worden gered."
)
