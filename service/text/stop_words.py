"""Stop words of queries, normalised as in `service.text.search_words`."""

from __future__ import annotations

# Without common words that have a meaning in another of these languages, such as "comment" and "plus".
_ENGLISH = (
    "a about an and any are as at be by can could do does for from had has have how i if in is it its me my"
    " of on or our please should so tell than that the their them then there these they this to us was we"
    " were what when where which who why will with would you your"
)
_GERMAN = (
    "aber als auch auf aus bei das dass dem den der des die du ein eine einem einen einer eines er es fur gibt ich"
    " ihr ihre ihren im ins ist kann konnen man mein meine meinen mit mochte muss nach noch nur oder sich sie sind"
    " uber um und vom von wann warum wenn wer werden wie wird wir wo zu zum zur"
)
_ROMANCE = (
    # French
    " au aux avec ce ces cette combien dans de des du elle en est et faire fait il ils je la le les leur ma mes mon nos"
    " notre nous ou par pas peut peux pour pourquoi puis quand que quel quelle quels quelles qui quoi sa sans se ses"
    " son sont sur tu un une vos votre vous"
    # Spanish
    " al como con cual cuales cuando cuanto del donde el es hay las lo los mi mis muy para por puede puedo quien se sin"
    " sobre su sus tengo unas unos y"
    # Italian
    " che chi come cosa dei della delle dove e gli ho il mia mio nel nella per posso puo quando quanto sono uno"
    # Portuguese
    " ao com da das dos em eu meu minha na nas no nos onde os pode qual quais quem sem um uma uns umas"
)
_OTHERS = (
    # Dutch
    " aan een het hoe ik je kan met mijn niet op te van voor waar waarom wanneer wat welke wie zijn"
    # Polish
    " czy dlaczego gdzie jak jaka jaki jest kiedy kto moge moj moja na nie sie w z"
    # Turkish
    " bir bu hangi icin ile kim mi mu nasil ne neden nerede ve zaman"
    # Russian, and what Ukrainian shares
    " а без бы в вы где для до есть же и из или к как какая какие какой когда кто ли мне можно мои мой моя мы на не"
    " но нужно о он она они от по почему при с сколько со у что это я"
    # Greek, with σ at the end as case folding leaves it
    " απο για δεν ειναι η θα και με μου να ο οι που πωσ ποτε σε στη στην στο τα τη την τησ τι το τον του των"
    # Arabic
    " ان او اين الي التي الذي عن علي في كم كيف لا لماذا ما متي مع من هذا هذه هل هو هي و يمكن"
    # Hebrew
    " אני איך איפה או את האם הוא היא זה כמה לא מה מי מתי על עם של"
    # Hindi
    " और एक क्या क्यों कब कहा कितने का की के को कैसे जा मुझे में मेरा मेरी मेरे मैं यह ये वह से हम है हैं हो होता पर"
)
STOP_WORDS = frozenset(f"{_ENGLISH} {_GERMAN} {_ROMANCE} {_OTHERS}".split())

# Stop words of unspaced scripts: their bigrams and trigrams are left out of queries.
_CHINESE = (
    "什么时候 甚麼 什麼時候 怎么办 怎麼辦 怎样 怎樣 如何 可以 能否 是否 是不是 多少 几个 哪里 哪裡 哪些 哪个"
    " 哪個 为什么 為什麼 为何 何时 请问 請問 我们 我們 你们 你們 他们 他們 我的 你的 他的 这个 這個 那个 那個"
    " 这是 這是 那是 有没有 有沒有 是什么 是什麼 能不能 需要 我想要 一个 一個 一下 告诉我 告訴我 的是 是的 我能"
    " 我可"
)
_JAPANESE = (
    "です ます ません でした ました して する から まで には では とは ので のに ください 下さい について"
    " どうすれば どうやって いいですか よいですか ますか ありますか できますか できる なに 何です どこ どの"
    " いつです している という 教えて たい のは のが のを のか のような こと れる られる さん ある 方法は"
    " でしょうか いくらです ですか"
)
_KOREAN = (
    "어떻게 하나요 인가요 입니까 합니까 합니다 습니다 입니다 하는 하려면 되나요 할까요 있나요 있습니까 있는"
    " 무엇인가요 무엇 언제 어디서 에서 으로 까지 부터 에게 해요 하고 하면 됩니까 됩니다 해야 나의 제가 저는"
    " 해주세요 알려 알려주세요 싶어요 얼마나"
)
_THAI = "อย่างไร ได้ไหม ครับ ค่ะ เป็น ที่ไหน อะไร เมื่อไหร่ ของฉัน ฉัน หรือไม่ คือ ทำไม"
STOP_RUNS = tuple(f"{_CHINESE} {_JAPANESE} {_KOREAN} {_THAI}".split())
