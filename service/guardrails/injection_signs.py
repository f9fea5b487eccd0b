"""Signs of instructions to a model in text from outside, in English, German, French, Spanish, Italian and Dutch.

Patterns are matched against small letters. No pattern has a repetition in a repetition, and each gap is bounded, so the
time is linear in the text. A pattern is tried only where one of its words occurs.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_GAP = r"[^.!?\n]"  # within a sentence
_AI = (
    r"(?:ai|ai[ -](?:assistant|agent|model|system)|assistant|language model|llm|chatbot|chat ?gpt|gpt"
    r"|claude|copilot|gemini"
    r"|assistent(?:en|in)?|ki|ki-assistent(?:en)?|sprachmodell|assistante?|ia|agent ia|asistente"
    r"|assistente|modello linguistico"
    r"|modelo de lenguaje|taalmodel)\b"
)
_PLACE = (
    r"(?:[^\s@<>\"']{1,64}@[^\s@<>\"']{2}|https?://|www\.|\b[a-z]{2}[0-9]{2}[ ]?[a-z0-9]{4}[ ]?[0-9]{4}"
    r"|\b[a-z]{2,24}_[a-z]{2})"
)


class Sign(NamedTuple):
    """Sign of instructions. `core`: without one of these, others mean nothing. `words`: a match has one of them."""

    name: str
    weight: int
    core: bool
    words: frozenset[str]
    pattern: re.Pattern[str]


def _sign(name: str, weight: int, core: bool, words: str, *parts: str) -> Sign:
    return Sign(name, weight, core, frozenset(words.split()), re.compile("|".join(parts), re.MULTILINE))


SIGNS = (
    _sign(
        "override",
        2,
        True,
        "ignore ignoring disregard forget override overrides bypass discard follow following ignoriere "
        "ignorieren ignorier vergiss "
        "vergessen missachte missachten ignorez ignorer oublie oubliez compte ignora ignoren ignorad "
        "olvida olvide omiso "
        "ignorate ignori dimentica dimenticate trascura negeer vergeet",
        r"\b(?:ignor(?:e|ing)|disregard|forget|overrid(?:e|es)|bypass|discard|(?:not|n't"
        r"|stop) follow(?:ing)?)\b"
        rf"{_GAP}{{0,40}}?\b(?:all|any|every|previous|prior|above|earlier|preceding|existing|original"
        rf"|initial|your|system|safety"
        rf"|other)\b{_GAP}{{0,25}}?\b(?:instructions?|directions|directives?|prompts?|rules|guidelines"
        rf"|commands|constraints"
        r"|programming|restrictions|orders|context|training|tasks?|messages? above)\b",
        rf"\b(?:ignorier(?:e|en)?|vergiss|vergessen sie|missachten?)\b{_GAP}{{0,40}}?\b(?:anweisung"
        rf"|instruktion|regeln|vorgaben"
        r"|befehle|prompt)",
        rf"\b(?:ignor(?:e|ez|er)|oubli(?:e|ez)|(?:pas|plus) compte)\b{_GAP}{{0,40}}?\b(?:instructions"
        rf"|consignes|directives|règles"
        r"|ordres)\b",
        rf"\b(?:ignor(?:a|e|en|ad)|olvid(?:a|e)|caso omiso)\b{_GAP}{{0,40}}?\b(?:instrucciones"
        rf"|indicaciones|órdenes|reglas"
        r"|directrices|lo anterior)\b",
        rf"\b(?:ignor(?:a|ate|i)|dimentic(?:a|ate|hi)|trascura)\b{_GAP}{{0,40}}?\b(?:istruzioni"
        rf"|indicazioni|regole|direttive"
        r"|ordini)\b",
        rf"\b(?:negeer|vergeet)\b{_GAP}{{0,40}}?\b(?:instructies|aanwijzingen|opdrachten|regels)\b",
        r"\b(?:vergiss|ignoriere|oublie|oubliez|ignore|ignorez|ignora|olvida|dimentica|vergeet|negeer)"
        r" (?:alles|tout|todo|tutto)\s?[.!:;]",
    ),
    _sign(
        "override_all",
        3,
        True,
        "ignore disregard forget alles tout todo tutto",
        r"\b(?:ignore|disregard|forget)(?: about)? (?:all|any|everything)(?: of)?(?: the| your| these| those)?"
        r" (?:previous|prior|above|earlier|preceding|other|former|instructions?|rules|guidelines|prompts?)\b",
        r"\b(?:forget|ignore|disregard) (?:everything|all)(?: that)? (?:you|above|before|i|was|were"
        r"|written|prior)\b",
        r"\b(?:ignore|disregard|forget) your (?:system |previous |prior |original |initial |safety )?"
        r"(?:instructions|prompt|rules|guidelines|programming|training)\b",
    ),
    _sign(
        "address",
        2,
        True,
        "ai assistant model llm chatbot gpt chatgpt claude copilot gemini assistent assistenten ki "
        "sprachmodell assistante ia "
        "asistente assistente taalmodel",
        rf"\b(?:attention|note|message|notice|instructions?|dear|hey|reminder"
        rf"|listen)\b[^.!?\n,:]{{0,24}}?\b(?:to|for|all|any|the"
        rf"|dear|hey|attention)?[ :,]{{0,2}}{_AI}[ ]?(?:[:,!.]|reading|processing|that|who|please|you)",
        rf"\bif you(?: are|'re)? an? {_AI}",
        rf"\b(?:as|being) an? {_AI}[, ]{{1,2}}you\b",
        rf"\b(?:wichtig|achtung|hinweis|nachricht|anweisung(?:en)?)\b[^.!?\n]{{0,24}}?\b(?:für|an|zum"
        rf"|den)\b[^.!?\n]{{0,12}}?{_AI}",
        rf"\b(?:important|attention|message|note|consignes?)\b[^.!?\n]{{0,16}}?\b(?:pour|à"
        rf"|au)\b[^.!?\n]{{0,8}}?{_AI}",
        rf"\b(?:importante|atención|mensaje|nota|attenzione|messaggio|aviso)\b[^.!?\n]{{0,16}}?\b(?:para"
        rf"|al|per|all)\b[^.!?\n]{{0,8}}?"
        rf"{_AI}",
        rf"\b(?:belangrijk|let op|bericht)\b[^.!?\n]{{0,16}}?\b(?:voor|aan)\b[^.!?\n]{{0,8}}?{_AI}",
        rf"<!--\s{{0,5}}(?:system|{_AI})",
        r"\bto you,? (?:claude|chatgpt|gpt|gemini|copilot|assistant)\b",
    ),
    _sign(
        "called",
        1,
        True,
        "ai assistant agent llm assistent asistente assistente assistante",
        r"^[^\w\n]{0,8}(?:assistant|ai|llm|assistent|asistente|assistente|assistante?)\s?[:,]",
    ),
    _sign(
        "secrecy",
        1,
        True,
        "tell telling mention mentioning inform informing notify notifying reveal asking alerting "
        "verrate erwähne informiere dis "
        "dites mentionne digas menciones avises dire menzionare avvisare vertel zeg meld",
        r"\b(?:not|n't|never|without) (?:tell(?:ing)?|mention(?:ing)?|inform(?:ing)?|notify(?:ing)?"
        r"|reveal|asking|alerting)\b"
        rf"{_GAP}{{0,24}}?\b(?:user|anyone|anybody|him|her|them|owner|human|person|this|it|that)\b",
        rf"\b(?:verrate|erwähne|informiere)\b{_GAP}{{0,30}}?\bnicht",
        r"\bne (?:le |lui )?(?:dis|dites|mentionne)\b",
        r"\bno (?:le |lo )?(?:digas|menciones|avises)\b",
        r"\bnon (?:dire|menzionare|avvisare)\b",
        rf"\b(?:vertel|zeg|meld)\b{_GAP}{{0,20}}?\bniet",
    ),
    _sign(
        "exfiltration",
        2,
        True,
        "prompt instructions rules guidelines history above",
        rf"\b(?:reveal|print|output|repeat|show|leak|disclose|display|dump|tell me|give me"
        rf"|send)\b{_GAP}{{0,24}}?"
        r"\b(?:system prompt|your (?:initial |original |hidden |full |secret |exact )?(?:instructions"
        r"|prompt|rules|guidelines)"
        r"|initial prompt|hidden instructions|(?:conversation|chat) history|(?:text|everything|words) above)\b",
    ),
    _sign(
        "decode",
        3,
        True,
        "decode decipher decrypt rot13 base64 dekodiere décode decodifica decodeer",
        rf"\b(?:decode|decipher|decrypt|dekodiere|décode|decodifica|decodeer)\b{_GAP}{{0,40}}?\b(?:and|then|und|et|y|e|en)\b"
        r" (?:do|follow|obey|carry|befolge|suis|sigue|segui|volg)\b",
    ),
    _sign(
        "persona",
        1,
        True,
        "now pretend roleplay mode persona new",
        r"\byou are (?:now|no longer) \w|\bpretend (?:to be|you are|that you)\b|\broleplay as\b"
        r"|\bfrom now on,? (?:you|your|respond"
        r"|answer|act|always)\b|\byour new (?:task|instructions?|role|goal|objective|persona) (?:is|are)\b"
        r"|\b(?:developer|dan|god|jailbreak|debug|admin|sudo|unrestricted) mode\b|\bnew instructions?\s?:",
    ),
    _sign(
        "first",
        1,
        True,
        "before instead following",
        r"\bbefore (?:you )?(?:can |do |are )?(?:solv|answer|respond|continu|complet|proceed|repl"
        r"|finish)\w{0,5}\b[^.!?\n]{0,60}?"
        r"\b(?:please|must|first|need|have to|do)\b",
        r"\b(?:do|perform|complete|execute) the following[^.!?\n]{0,16}?\b(?:first|instead|task)\b",
        r"\binstead,? (?:you (?:must|should|will|have)|respond|answer|say|reply|output|send|forward|call)\b",
    ),
    _sign(
        "authority",
        1,
        False,
        "user admin administrator owner important urgent critical official",
        r"\bthe user (?:has )?(?:already )?(?:asked|requested|authori[sz]ed|approved|agreed|wants|consented)\b"
        r"|\b(?:approved|authori[sz]ed) by (?:the )?(?:user|admin|administrator|owner|system)\b"
        r"|\bthis is an? (?:important|urgent|critical|official|authori[sz]ed) (?:message|instruction"
        r"|request|order|notice|system)\b",
    ),
    _sign(
        "markers",
        1,
        False,
        "system inst sys im_start im_end start_header_id instructions instruction important information "
        "function_calls tool_use "
        "tool_result invoke endoftext end_of_turn",
        r"^[^\w\n]{0,8}system\s?:|<\|(?:im_start|im_end|system|start_header_id|endoftext)\|?>?"
        r"|\[/?(?:inst|system)\]|<</?sys>>"
        r"|</?(?:system|instructions?|function_calls|tool_use|tool_result|system_prompt|important"
        r"|information|invoke)\b[^>\n]{0,40}>"
        r"|\{\s{0,4}\"type\"\s{0,4}:\s{0,4}\"tool_(?:use|result)\"|^#{2,6} ?(?:system|new instructions?)\b"
        r"|\bend of (?:system|user|context"
        r"|prompt|document|data)\b",
    ),
    _sign(
        "action",
        1,
        False,
        "send forward email mail transfer wire pay upload submit share bcc delete call invoke click open "
        "visit navigate fetch book "
        "reserve invite change reset execute sende schicke leite überweise lösche öffne klicke envoie "
        "envoyez transfère supprime "
        "ouvre envía envíe manda reenvía transfiere borra abre invia inoltra trasferisci elimina apri "
        "stuur verstuur verwijder",
        r"\b(?:send|forward|e-?mail|mail|transfer|wire|pay|upload|submit|share|bcc|delete|call|invoke"
        r"|click|open|visit|navigate|fetch"
        r"|book|reserve|invite|change|reset|execute|sende|schicke|leite|überweise|lösche|öffne|klicke"
        r"|envoie|envoyez|transfère"
        r"|supprime|ouvre|envía|envíe|manda|reenvía|transfiere|borra|abre|invia|inoltra|trasferisci"
        r"|elimina|apri|stuur|verstuur"
        rf"|verwijder)\b[^.!?\n]{{0,80}}?{_PLACE}",
    ),
    _sign(
        "say",
        1,
        False,
        "say respond answer reply output print end",
        r"\b(?:say|respond|answer|reply|output|print)\b[^.!?\n]{0,12}?\b(?:only|exactly|just|with"
        r"|nothing but)\b"
        r"|\bend (?:your|every|each) (?:answer|response|reply|message)\b|\b(?:say|print"
        r"|output) [\"'“][^\"'”\n]{1,80}[\"'”]",
    ),
    _sign(
        "hidden",
        1,
        False,
        "none hidden white fff ffffff 0",
        r"display\s?:\s?none|font-size\s?:\s?0|visibility\s?:\s?hidden|[^-]color\s?:\s?(?:white|#fff)"
        r"|opacity\s?:\s?0[;\"']",
    ),
)
# Words by which a text is about such instructions, and holds them as examples.
ABOUT = re.compile(
    r"\b(?:prompt[- ]?injections?|jailbreak(?:s|ing)?|attackers?|adversar(?:y|ial|ies)"
    r"|red[- ]team(?:ing)?|payloads?|exploits?"
    r"|threat model|mitigations?|vulnerabilit(?:y|ies)|angreifer|angriff|attaquants?|atacantes?"
    r"|attaccant[ei]|aanvallers?)\b"
)
# Before an example.
EXAMPLE = re.compile(
    r"(?:\b(?:such as|for example|e\.g|for instance|phrases?|sentences?|strings?|text|like|saying|says"
    r"|said|wrote|writes?|reads?|containing|words?"
    r"|called|example|beispiel|wie|z\. ?b|exemple|ejemplo|esempio|bijvoorbeeld|comme|como|come)\b"
    r"|[\"'“”„«»‘`])[^.!?\n]{0,12}\Z"
)
NOT = re.compile(r"(?:\bnot|n't|\bnever|\bn['’]|\bno|\bnon|\bniet|\bnicht|\bnie)[ ]?(?:to |just |simply )?\Z")
NOT_AFTER = re.compile(r"\b(?:niet|nicht)\b")
