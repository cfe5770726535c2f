"""The filter `language`, on sentences that its tables have not seen."""

import pytest

from shardline_consumer.filters.language import FILTER
from shardline_consumer.filters.language_weights import weights
from tests.unit.filters.judged import reason, value
from tests.unit.filters.texts import ARTICLE_DE, ARTICLE_EN, DUTCH, LAW, SHORT_LAW

OTHERS = {
    "da": "Bestyrelsen har besluttet, at medlemmerne skal betale et nyt gebyr fra januar næste år.",
    "sv": "Regeringen har beslutat att alla kommuner ska redovisa sina utgifter före årets slut.",
    "fr": "Le conseil a décidé que les membres devront payer une nouvelle cotisation à partir de janvier.",
    "es": "El consejo ha decidido que los miembros tendrán que pagar una nueva cuota desde enero.",
    "it": "Il consiglio ha deciso che i soci dovranno pagare una nuova quota a partire da gennaio.",
    "pt": "O conselho decidiu que os membros terão de pagar uma nova quota a partir de janeiro.",
    "pl": "Zarząd postanowił, że członkowie będą musieli płacić nową składkę od stycznia.",
    "cs": "Výbor rozhodl, že členové budou muset od ledna platit nový příspěvek.",
    "hu": "Az elnökség úgy döntött, hogy a tagoknak januártól új díjat kell fizetniük.",
    "fi": "Hallitus on päättänyt, että jäsenten on maksettava uusi maksu tammikuusta alkaen.",
    "tr": "Yönetim kurulu, üyelerin ocak ayından itibaren yeni bir ücret ödemesine karar verdi.",
    "ru": "Правление решило, что с января члены общества будут платить новый взнос.",
    "el": "Το συμβούλιο αποφάσισε ότι τα μέλη θα πληρώνουν νέα εισφορά από τον Ιανουάριο.",
    "zh": "理事会决定,从一月起会员必须缴纳新的会费。",
    "ar": "قرر المجلس أن يدفع الأعضاء رسوما جديدة ابتداء من يناير.",
}
GERMAN = (
    ARTICLE_DE,
    LAW,
    SHORT_LAW,
    "Der Hund schläft unter dem Tisch.",
    "Wir treffen uns morgen früh am Bahnhof und fahren dann gemeinsam weiter.",
    "Kartoffeln schälen, würfeln und in wenig Wasser weich kochen.",
)
ENGLISH = (
    ARTICLE_EN,
    "The dog is sleeping under the table.",
    "We will meet at the station tomorrow morning and travel on together.",
    "Peel the potatoes, cut them into cubes and boil them in a little water.",
)


@pytest.mark.parametrize("text", GERMAN)
def test_german_is_german(text: str) -> None:
    assert reason(FILTER, text, languages=["de"]) is None
    assert reason(FILTER, text) is None
    assert reason(FILTER, text, languages=["en"]) == "other"


@pytest.mark.parametrize("text", ENGLISH)
def test_english_is_english(text: str) -> None:
    assert reason(FILTER, text, languages=["en"]) is None
    assert reason(FILTER, text) is None
    assert reason(FILTER, text, languages=["de"]) == "other"


@pytest.mark.parametrize("text", [DUTCH, *OTHERS.values()], ids=["nl", *OTHERS])
def test_other_languages_are_neither(text: str) -> None:
    assert reason(FILTER, text) == "other"


def test_a_text_without_letters_has_no_language() -> None:
    assert value(FILTER, "other", "12 + 3 = 15") == 0


@pytest.mark.parametrize(("language", "count"), [("de", 1200), ("en", 1200)])
def test_each_group_of_bytes_has_one_weight(language: str, count: int) -> None:
    assert len(weights(language)) == count
