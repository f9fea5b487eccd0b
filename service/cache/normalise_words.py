"""Word lists for `service.cache.normalise`: beginnings of questions, and words whose capitals carry meaning."""

from __future__ import annotations

PLEASE = "please"


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


# First words of greetings: a phrase that begins with one is no closing courtesy.
GREETINGS = _set("hi hello hey good")
INTERROGATIVES = _set(
    "what how why when where which who whose whom was wie warum wieso wann wo wer wem wen wessen welche"
    " welcher welches wohin woher que quoi comment pourquoi quand où qui quel quelle quels quelles combien qué"
    " cómo cuándo dónde cuál cuáles quién cuánto cuánta cuántos cuántas"
)
VERBS = _set(
    "is are was were am do does did can could should would will has have had may might must shall ist sind war"
    " waren hat habe haben kann können darf muss soll wird"
)
# First words of a complete question, without those that are names or other words when capitalised (Will, May, Can).
QUESTION_WORDS = INTERROGATIVES | _set(
    "is are am do does did can could should would have has had isn aren don doesn didn couldn wouldn shouldn"
    " hasn haven ist sind hat haben kann können darf muss soll gibt est"
)
# Lowered at the beginning of a text: none of them is also a name.
FIRST_WORDS = QUESTION_WORDS | _set(
    "what's who's where's how's when's why's isn't aren't don't doesn't didn't can't couldn't wouldn't"
    " shouldn't please tell show give explain describe list find compare hi hello hey thanks the an this that"
    " these those there it we you they my our your their if in on at for from with to of and or"
)
# Pronouns that may refer to a courtesy before them.
PRONOUNS = _set(
    "it its that this them they these those es das dies dieses sie ihn ce ceci cela ça c'est esto eso ese este lo la"
)
# Words of questions about language, where a greeting may be the subject.
ABOUT_WORDS = _set(
    "say says said saying mean means meant meaning word words phrase phrases expression expressions sentence"
    " translate translates translated translation spell spells spelled spelt spelling pronounce pronounced"
    " pronunciation write writes wrote written writing type typing reply replies respond response greet greets"
    " greeting greetings polite politely politeness rude rudely courtesy synonym synonyms opposite antonym"
    " rhyme rhymes etymology formal informal slang language english french german spanish italian portuguese"
    " dutch latin greek russian turkish arabic hindi chinese mandarin japanese korean capitalize capitalise"
    " answer answers answered answering button buttons click clicks clicked press presses pressed choose chosen label"
    " labelled labeled swedish polish danish norwegian finnish czech hungarian ukrainian thai vietnamese"
    " capitalized capitalised sagen sagt heißt bedeutet wort wörter übersetzen übersetze schreibt grüßen"
)
# Words that may refer back to the greeting before them.
POINTING = _set("it its it's that that's this these those one")
# Words that no complete question ends with: the next word belongs to the question.
INCOMPLETE = _set(
    "a an the about after against and as at before between by for from in into is are was of on or than that"
    " to use using used with without like called magic not no word when where why how what which who"
)
# Words after which "I" is the pronoun, not a numeral, a vitamin or a current.
BEFORE_I = _set("can could do did may might shall should must will would am have had don't didn't can't")
# Small words: if even they are capitalised, as in a headline, capitals carry no information.
SMALL_WORDS = _set(
    "is are am was were do does did can could should would have has had the a an of to for from with in on at"
    " by and or my your our their this that it you i we they about"
)
# Words that in capitals are other words (acronyms).
ACRONYMS = _set(
    "it who aids or in me hi ok am pm sad sos arm sim ram pin mac gas pet tan fed ice ada ear lead fast smart"
    " care bit bat cat dos ham hot mad map par pal pub sap sat scuba soap tag tom vat yam la ma pa oh al id de"
    " co rest basic acid solid dry kiss stem base lamp perl dash crud dare catch pop spice lisp gist"
)
# Names, peoples, months and products that are also common words; German forms of address; ss written for ß.
TWO_READINGS = _set(
    "us polish may march august turkey china japan jordan chad guinea chile mali nice reading mobile job bill"
    " will mark rose frank jack grace hope faith joy iris amber ruby python java rust go swift apple amazon"
    " windows word excel access outlook teams meta oracle shell target gap visa sun mercury mars earth venus"
    " god catholic orthodox roman swede dane welsh lent cancer leo gemini aries slack zoom notion discord"
    " stripe square signal safari edge chrome ford bath cork cologne orange champagne brandy earl miles art pat"
    " sandy dolly olive ivory violet jasmine ginger daisy lily poppy holly hazel heather april june summer"
    " autumn dawn eve robin drew rob sue nick dick harry peter hunter baker smith cook fisher stone young king"
    " bush moor morse hamlet concord revolution union divine titanic numbers pages finder maps photos messages keynote"
    " sie ihr ihre ihren ihrem ihrer ihnen masse"
    " massen busse bussen floss"
)
