"""Plain forms of questions: equal for spellings of one question, different for any other."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config import Settings
from service.cache.normalise import MAX_CHARACTERS, Normaliser

PLAIN = Normaliser(Settings.model_fields["near_stop_phrases"].default.split(","))

_WORDS = (
    # courtesies, and what else stands where they do
    "hello hi hey please thanks thank goodbye bye sorry welcome cheers bitte danke merci hola ciao"
    # words that only their capitals tell apart
    " US us IT it WHO who AIDS aids Polish polish May may March march August august Turkey turkey China china Rose rose"
    " Bill bill Mark mark Will will Reading reading Nice nice Job job Apple apple Windows windows Java java Sie sie Ihr"
    " ihr Essen essen Arm arm Weg weg Mobile mobile Catholic catholic Lima lima Tangier tangier Ram ram"
    # letters that folding would change
    " Maßen Massen Buße Busse Straße Strasse STRASSE groß gross ﬁn fin ﬂoss floss İstanbul Istanbul ıstanbul kır kir"
    " sık sik ΣΑΣ σας σασ ŉ Ǆ Ǳ ĳ ſee see Kelvin résumé resume cafe café naïve naive über uber ueber año ano jalapeño"
    # signs that NFKC would change
    " x² x2 x½ x1 ① 1 ² 2 ½ 5² 52 5! 5 ℃ C °C Ⅳ IV ㎏ kg ™ TM ª a º o № No ﷺ ﬃ ffi ㍿ µ μ Ω ohm Å"
    # negations, numbers, code, currencies
    " not no never 10 100 1.5 15 1,5 -5 +5 17% 17 €17 $17 C# C++ F# H-104 H104 foo_bar foo-bar foobar 3rd 30-day"
    # short words that are easily taken for nothing
    " an the this that my your our all any some every on off in out up down before after with without and or nor"
    " is was can could should must more less most least first last next left right new old open closed true false"
    # content
    " refund invoice payment price plan account team user admin owner guest password login logout sync backup restore"
    " folder file upload download share link export import report usage limit cap budget currency dollar euro pound"
    " year month week day hour minute second morning evening night today tomorrow yesterday spring summer autumn winter"
    " north south east west red green blue black white cat dog horse bird fish tree flower river mountain sea island"
    " bread butter cheese milk water wine beer coffee tea sugar salt pepper apple orange lemon pear plum cherry grape"
    " one two three four five six seven eight nine ten eleven twelve doctor lawyer teacher baker farmer pilot nurse"
    " run walk swim fly drive ride sing dance read count weigh measure cut cook bake boil fry freeze heat cool buy sell"
    " lend borrow pay owe win lose begin end stop start quick slow heavy light deep shallow wide narrow hot cold dry"
    " 日本 中国 東京 京都 서울 부산 Москва Киев Αθήνα القاهرة दिल्ली กรุงเทพ"
)
WORDS = _WORDS.split()
FRAMES = (
    "How do I say {}?",
    "How do I say {} and {}?",
    "what does {} mean",
    "Translate {} for me.",
    "Is it rude to say {}?",
    "What is {}",
    "what is the {} of it, please?",
    "Hi, what is the {} for?",
    "Could you tell me what is {}?",
    "Is it {} or not? Thanks!",
    "Which is better, sorry or {}?",
    "What is {}, exactly?",
    "When should I use {} in a letter?",
    "Can you {} it",
    "{} is what?",
    "Tell me about {}.",
    "I need {} now",
)


def test_there_are_words_enough() -> None:
    assert len(set(WORDS)) >= 300


@given(st.sampled_from(FRAMES), st.sampled_from(WORDS), st.sampled_from(WORDS))
def test_questions_that_differ_in_one_word_never_share_a_plain_form(frame: str, one: str, other: str) -> None:
    first, second = frame.replace("{}", one), frame.replace("{}", other)
    if one != other:
        assert PLAIN.of(first) is None or PLAIN.of(first) != PLAIN.of(second)


@pytest.mark.parametrize("frame", FRAMES)
def test_no_two_of_all_the_words_share_a_plain_form(frame: str) -> None:
    """The same without chance: every word in one frame, where each plain form must be one word's own."""
    forms: dict[str, str] = {}
    for word in dict.fromkeys(WORDS):
        form = PLAIN.of(frame.replace("{}", word))
        if form is not None:
            assert forms.setdefault(form, word) == word, form


@pytest.mark.parametrize(
    "other",
    [
        "what is the refund period",
        "What is the refund period?!",
        "  What  is the\trefund period ?  ",
        "WHAT IS THE REFUND PERIOD?",
        "What Is The Refund Period?",
        "Hi, what is the refund period?",
        "hello! What is the refund period?",
        "Good morning,\n\nwhat is the refund period?",
        "Hi there,\nwhat is the refund period?\n\nThanks in advance!",
        "Hi there! Could you please tell me what is the refund period? Thanks in advance!",
        "Please tell me what is the refund period.",
        "What is the refund period, please…",
        "What is the refund period? Thank you.",
        "What is the refund period? Please. Thanks!",
        "WHAT IS THE REFUND PERIOD please",
        "Ｗｈａｔ is the refund\u00a0period？",
        "¿What is the refund period?",
        "I'd like to know what is the refund period.",
        "I’d like to know what is the refund period.",
    ],
)
def test_the_same_question(other: str) -> None:
    assert PLAIN.of(other) == PLAIN.of("What is the refund period?") == "what is the refund period"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Do refunds take 30 days?", "Do refunds not take 30 days?"),
        ("Can I sync offline?", "Can't I sync offline?"),
        ("What is 17% of 20?", "What is 17 of 20?"),
        ("What is 1.5 of 20?", "What is 15 of 20?"),
        ("What is 5?", "What is 5!"),
        ("What is 5?", "What is 5 !"),
        ("What is 5 + 2?", "What is 5 - 2?"),
        ("What is -5 and 2?", "What is 5 and 2?"),
        ("Is it $20 now?", "Is it €20 now?"),
        ("Is it 20 now?", "Is it €20 now?"),
        ("Is C good to learn?", "Is C# good to learn?"),
        ("Is C good to learn?", "Is C++ good to learn?"),
        ("Is it sold in the US?", "Is it sold in the us?"),
        ("IS IT SOLD IN THE US?", "Is it sold in the us?"),
        ("What does WHO say?", "What does who say?"),
        ("What's Windows?", "what's windows?"),
        ("WHERE IS POLISH USED?", "where is polish used?"),
        ("Was trinken Sie?", "Was trinken sie?"),
        ("IN MASSEN GUT", "in Maßen gut"),
        ("Tell me about plan A and B", "Tell me about plan A or B"),
        ("Can you swim?", "You swim?"),
        ("You deliver to France.", "You deliver to France?"),
        ("Is the résumé here?", "Is the resume here?"),
        ("What comes after 1, 2, 3", "What comes after 1, 2, 3..."),
        ("Is it 5, 6 or 7?", "Is it 56 or 7?"),
        ("What is better, cat food or dog food?", "What is better cat, food or dog food?"),
        ("What is i squared", "What is I squared"),
        ("Hello! What is it in Danish?", "Thank you! What is it in Danish?"),
        ("Hello, what is its plural?", "what is its plural?"),
        ("Which key is ;", "Which key is ?"),
        ("What is the operator ;?", "What is the operator !?"),
        ("What is the operator .", "What is the operator !"),
        ("είναι καλό;", "είναι καλό."),
        ("WHAT IS REST?", "what is rest?"),
        ("How Do I Use Numbers?", "how do i use numbers?"),
    ],
)
def test_another_question(one: str, other: str) -> None:
    assert PLAIN.of(one) is None or PLAIN.of(one) != PLAIN.of(other)


@pytest.mark.parametrize(
    "question",
    [
        "How do I say thanks?",
        "How do I say, thanks?",
        "How do I say please",
        "How do I use please?",
        "What does please mean",
        "What does it mean? Please",
        "Hello, what does that mean?",
        "Thanks, how do I say that in French?",
        "Hello, world in Python?",
        "Hi is it rude",
        "Who wrote please",
        "Which is more common, howdy, thanks?",
        "Is it better with thanks?",
        "thanks in French?",
        "Tell me when it rains",
        "I want to know everyone in my team",
        "Hello, is it formal?",
        "Thanks, what is that in Polish?",
        "Hello! How many letters does it have?",
        "Hi, how do Swedes pronounce this one?",
        "What happens if I click No, thanks?",
        "Is it ok to answer yes, please?",
        "Where is the button No, thank you?",
    ],
)
def test_a_courtesy_that_is_asked_about_stays(question: str) -> None:
    """Nothing is left out: as many words are left as there were."""
    form = PLAIN.of(question)
    assert form is not None and len(form.split()) == len(question.split())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Hi, please.",
        "Refunds?",
        "What does `x = 1` do?",
        "Why is f(x) slow?",
        "What is x^2 here?",
        "What is ｘ＝1 here?",
        "What is 5² today?",
        "What is ½ of it?",
        "What is ﬁne here?",
        "Is it 20 ℃ here?",
        "What is 5 \u212a here?",
        "Is getUser safe?",
        "Look at https://example.com please",
        "Is example.com down?",
        'What does "it" mean?',
        "What does 'it' mean?",
        "What does “it” mean?",
        "What does 「it」 mean?",
        "Translate: could you please tell me",
        "First line\nsecond line",
        "Hi,\nfirst line\nsecond line",
        "Is <b> bold?",
        "word " * MAX_CHARACTERS,
    ],
)
def test_only_the_same_text_will_do(text: str) -> None:
    assert PLAIN.of(text) is None


@pytest.mark.parametrize(
    "text", ["İSTANBUL NEREDE", "ISI KAÇ DERECE", "Straße is where", "ΟΔΟΣ is where", "ŉ is it"]
)
def test_no_letter_is_changed_into_others(text: str) -> None:
    form = PLAIN.of(text)
    assert form is None or len(form) == len(text)


@given(st.text(max_size=120))
def test_any_text_has_a_form_or_none(text: str) -> None:
    form = PLAIN.of(text)
    assert form is None or form == PLAIN.of(f"  {text}\t")


def test_the_courtesies_are_a_setting() -> None:
    polite = Normaliser(["bitte", " sagen  Sie mir ", ""])
    assert polite.of("Bitte sagen Sie mir, wo ist es?") == "wo ist es"
    assert polite.of("Wo ist es? Bitte!") == "wo ist es"
    assert polite.of("Please say where it is") == "please say where it is"
    assert Normaliser([]).of("Hi there, you") == "hi there, you"
