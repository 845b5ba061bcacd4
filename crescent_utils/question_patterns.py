"""What chat, labels, solutions and closing words around an elicited question look like (ours).

Only the head of a completion is compared with the patterns of chat, and only what follows a question with those of
solutions and closings, so that a problem's own sentences are left alone. No pattern repeats an unbounded part within
another, and each is tried at one place or on one sentence: the whole is linear in the text.
"""

from __future__ import annotations

import re

THING = r"(?:problem|question|puzzle|challenge|exercise|riddle|brain ?teaser|rewrite|revision|version|example)s?"
OPENING = (
    r"(?:sure(?: thing)?|certainly|of course|absolutely|okay|ok|alright|great|yes|no problem|gladly"
    r"|definitely|"
    r"thanks?(?: you)?|got it|so|well|understood|hello|hi(?: there)?|hey(?: there)?|wow|excellent|perfect)"
)
EXCLAIMS = re.compile(r"[^\d?:.\n]{1,60}!+\W*$")  # a short sentence without a number: "Challenge accepted!"
ANNOUNCES = re.compile(r"[^\d?]{1,160}:\W*$")
OPENING_WORD = re.compile(rf"{OPENING}, ", re.I)
GREETING = re.compile(rf"\W*{OPENING}\W*$", re.I)
CHAT = re.compile(
    rf"\W*(?:{OPENING}\b[^\w\n]{{0,4}})?(?:"
    r"(?:here (?:it|they) (?:is|are|goes)\b|here(?:[’']s| is| are| you (?:go|are)| we go|[’']re)\b"
    rf"(?=[^\n]*(?:\b{THING}|\b(?:one|go|thing|for you"
    rf"|request(?:ed)?)\b|:\W*$))"
    r"|i(?:[’']d| would) be (?:happy|glad|delighted)|(?:happy|glad) to\b|with pleasure"
    r"|how about\b(?=[^\n]*[:!]|\s*$)"
    r"|i(?:[’']ve| have| will|[’']ll| can| came| think| created| made| wrote| hope|[’']m)\b"
    rf"(?=[^\n]*\b(?:{THING}|one|you|this|idea)\b)"
    r"|i can help\b"
    rf"|let me\b|let[’']s\b(?=[^\n]*\b(?:{THING}|one|this)\b)|let[’']s (?:go|dive in|begin|start)"
    rf"|consider (?:this|the following)\b(?=[^\n]*:)"
    rf"|try this\b|as (?:an ai|requested|you)\b|based on (?:your|the) request|that[’']s (?:a"
    rf"|an) [^\n]*\b{THING}\b"
    rf"|what an? [^\n]{{0,40}}\b(?:{THING}|idea|request)\b|(?:below|following|above) is\b"
    rf"|(?:the|this|a|an|my|your|one|another)\b(?=[^\n]*\b{THING}\b[^\n]*:\W*$)"
    rf"|[^\n:]{{0,80}}\b{THING}[^\n:]{{0,60}}:\W*$))",
    re.I,
)
LABEL = re.compile(
    r"[\s#>*_]*(?:(?:(?:the|a|my|your|unique|special|diverse|creative|math(?:ematics|ematical|s)?|word"
    r"|high[- ]school|level|new|"
    r"modified|rewritten|revised|changed|original|sample|practice|challenge|algebra|geometry"
    r"|arithmetic)[ -]){0,6}"
    r"(?:problem|question|puzzle|challenge|exercise|task)(?: statement)?|Q|assistant)(?: ?(?:#|no\.? |number )? ?1)?"
    r"\s*[*_]*(?:[:：](?!\d)|[—–](?=\s)|(?<=1)[.)](?=\s)|(?=\n))[ *_]*",
    re.I,
)
TITLE = re.compile(
    r"\s*(?:#{1,6}[ \t]+[^\n?]{1,90}|\*\*[^*\n?.!]{1,80}\*\*:?|__[^_\n?.!]{1,80}__:?"
    r"|title: [^\n?]{1,80})[ \t]*\n",
    re.I,
)
SEGMENT = re.compile(r"[.!?:]{1,6}[\"'”’)*_]{0,6}(?=\s|$)|[:,!]\s?(?=\n)|\n")
ANOTHER = re.compile(
    r"[\s#>*_-]*(?:(?:problem|question|puzzle|challenge|exercise|example|variation|version|Q) ?(?:#"
    r"|no\.?)? ?(?:[2-9]|1\d)\b"
    r"|\(?(?:[2-9]|1\d)[.)]\s+[A-Z\d*\"]|another (?:one|problem|question)\W*[:\n]|bonus (?:question|problem"
    r"|challenge)|(?:question|problem)\s*:)",
    re.I,
)
SOLVED = re.compile(
    r"[\s#>*_(\[-]*(?:(?:the |a |your |my |possible |sample |detailed |correct |final )*"
    r"(?:solutions?|answers?(?: key| choices)?|ans|explanations?|hints?|steps?"
    r"|step[- ]by[- ]step[^:\n]{0,30}|working|"
    r"approach|reasoning|calculations?|equations?|response|difficulty|level|topic|skills?|category"
    r"|grade)(?: \d+)?"
    r"\s*[*_]*\s*(?:[:：]|\n|$|(?<=\d)[.)])"
    r"|A ?[:.]\s|(?i:the) (?:correct |final )?(?:answer|solution) (?:is|to)\b|assistant\b|user\b|human\s*:"
    r"|\\boxed|####|-{3,})",
    re.I,
)
SOLVES = re.compile(
    r"[\s#>*_-]*(?:to (?:solve|find|answer|calculate|determine|figure|get)\b"
    r"|let(?:[’']s| us) |let \$?\\?[a-z]\b|(?:first|firstly|next|since|so|therefore|thus|in order to)\b"
    r"|we (?:know|can|need|have|start|are|will|must|should)\b|\$?[a-z]\$? ?= ?\S)",
    re.I,
)
CLOSING = re.compile(
    r"\W*(?:let me know\b|(?:i|we) (?:really )?hope\b|hope (?:this|you|that)\b|feel free\b|good luck\b"
    r"|have fun\b|enjoy\b|"
    r"happy (?:solving|learning|calculating|math)|please (?!round|express|give|show your answer|write)|"
    r"(?:can|could|are) you (?:(?:able|ready|up) )?(?:to |for )?(?:solve|figure|handle|crack|help|tackle"
    r"|the challenge|find (?:the|a) "
    r"(?:answer|solution))\b|would you like\b|do you (?:want|need|have|think you|like)\b|what do you think\b"
    r"|does this\b|"
    rf"is (?:this|there anything)\b|how(?:[’']s| is| was) (?:this|that)\b|try (?:to solve|solving|it|this)\b"
    rf"|take your time\b|give it a\b|"
    rf"(?:this|that|the(?: above)?) (?:math |word |new |unique )*{THING}\b|this (?:requires|involves|tests"
    rf"|should|one|is)\b|"
    r"i(?:[’']ll|[’']d|[’']m|[’']ve| will| would| am| can| have| tried| made| look| chose| changed| kept)\b|"
    r"if you(?:[’']d| would| need| have any| want|[’']re stuck| get stuck)\b|(?:show|explain) your (?:work"
    r"|reasoning)|"
    r"don[’']t forget\b|looking forward|thank you|thanks\b|note: (?:this|the|you|i)\b|\(?note that (?:this"
    r"|the)\b|ready\b|"
    r"it (?:requires|involves|tests|combines)\b|remember to\b|as always\b|and there you|there you (?:go"
    r"|have))",
    re.I,
)
REFUSAL = re.compile(
    r"\W*(?:i(?:[’']m| am) (?:sorry|unable|not able|afraid)|sorry|i (?:cannot|can[’']t|apologi[sz]e)"
    r"|unfortunately|as an ai)\b",
    re.I,
)
IMPERATIVE = re.compile(
    r"(?:^\W*(?:(?:please|then|now|also|and|hence)\b,? ?)?|[,;:] (?:and |then |please )?|\band )"
    r"(?:calculate|find|determine|compute|solve|evaluate|simplify|estimate|express|convert|prove|show that"
    r"|work out|figure out"
    r"|how (?:many|much|long|far|old|fast|tall|big)|what (?:is|are|was|will|would|fraction|percent))\b"
    r"|^\W*(?:write|name|list|give|state|identify|divide|add|subtract|multiply|compare|choose|factor|round"
    r"|complete|fill)\b"
    r"|\bhow (?:many|much) (?:[a-z]+ )?(?:did|does|do|would|will|is|are|was|were)\b",
    re.I,
)
INSTRUCTS = re.compile(
    r"\W*(?:(?:please )?(?:round|assume|express|give your|use|write (?:your|the)|suppose|ignore|state your"
    r"|leave|do not)\b"
    r"|remember (?:that )?(?:there|that)\b|note: (?:assume|round)|consider\b)|\((?!note)",
    re.I,
)
OPTION = re.compile(r"\s*(?:\(?[A-Ea-e1-5][).:]|\([a-e]\))\s+\S")
SENTENCE_END = re.compile(
    r"(?<!\bMr)(?<!\bMrs)(?<!\bMs)(?<!\bDr)(?<!\bSt)(?<!\bsq)(?<!\bSq)[.!?]{1,6}[\"'”’)*_\]]{0,6}(?=\s|$)"
    r"|\)(?=\s+(?:I|Let|Good|This|Hope|Can|Do|Would|Try)\b)|\n"
)
BULLET = re.compile(r"[ \t]*(?:[-*•]\s+|>\s*|#{1,6}\s+|\(?1[.)]\s+(?=\S))")
BOLD = re.compile(r"(?<!\w)(\*\*|__)(?=\S)([^*_\n]{1,2000}?)(?<=\S)\1(?!\w)")
QUOTES = {'"': '"', "“": "”", "'": "'", "‘": "’", "«": "»", "`": "`", "*": "*", "_": "_"}
HEADER = re.compile(r"(?:<\|[a-z_]{2,40}\|>\s*(?:assistant|system)?\s*){1,6}", re.I)
TOKEN = re.compile(r"<\|[a-z_]{2,40}\|>|</s>|\[/?INST\]|<(?:end|start)_of_turn>")
DROPPED = dict.fromkeys([*range(9), *range(11, 32), 127, 0x200B, 0x2060, 0xFEFF])
NUMBER = re.compile(
    r"\d+(?:[.,:/]\d+)*|[½⅓⅔¼¾⅕⅛]|\b(?:zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve"
    r"|thirteen|fourteen|"
    r"fifteen|sixteen|seventeen|eighteen|nineteen|twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety"
    r"|hundreds?|"
    r"thousands?|millions?|half|halves|third|thirds|quarters?|fourths?|fifths?|twice|thrice|double[ds]?"
    r"|triple[ds]?|dozens?|"
    r"couple|pair|first|second|once)\b",
    re.I,
)


ENGLISH = frozenset(
    "the a an of to and in is are was were be he she it they his her their has have had how many much what "
    "who which "
    "if each on for with at by from there than more does do did will would can you i find calculate".split()
)
FOREIGN = frozenset(
    "el la los las un una de del que en y es son cuántas cuántos cuánto tiene le les des et est une du dans "
    "combien der die das "
    "und ein eine ist sind wie viele hat il gli che di per quanti quante ha o os uma um quantos quantas não "
    "tem em zu mit von "
    "het een van hoeveel heeft jest ile och att har".split()
)


# The four phrases that the description of the released code names, then ours to make up its "some two dozen".
RELEASED_CHAT = (
    "of course", "word problem", "answer", "i need", "sure", "here is", "heres", "certainly", "math "
    "problem", "let me know",
    "i hope", "feel free", "good luck", "happy to help", "id be happy", "solution", "high school", "can you "
    "solve",
    "absolutely", "great question", "challenging problem", "unique problem", "thank you", "im sorry",
)  # fmt: skip
