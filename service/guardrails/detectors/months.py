"""Names of months and their short forms, in six languages; in Polish as they stand in dates."""

MONTHS = (
    "jan(?:uary|uar|vier|uari)?|ene(?:ro)?|gen(?:naio)?|feb(?:ruary|ruar|ruari|rero|braio)?|f[ée]v(?:rier)?|"
    "mar(?:ch|s|zo|t)?|m[äa]rz|maart|mrt|apr(?:il|ile)?|avr(?:il)?|abr(?:il)?|may|mai|mayo|mag(?:gio)?|"
    "mei|maggio|"
    "june?|juni|juin|junio|giu(?:gno)?|july?|juli|juil(?:let)?|julio|lug(?:lio)?|aug(?:ust|ustus)?|ao[ûu]t|"
    "ago(?:sto)?|sept?(?:ember|embre|iembre)?|set(?:tembre)?|septiembre|oct(?:ober|obre|ubre)?|okt(?:ober)?|"
    "ott(?:obre)?|nov(?:ember|embre|iembre)?|de[cz](?:ember)?|d[ée]c(?:embre)?|dic(?:iembre|embre)?|"
    "stycznia|lutego|marca|kwietnia|maja|czerwca|lipca|sierpnia|września|października|listopada|grudnia"
)
