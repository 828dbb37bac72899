"""What the analyser knows of English: words that every text has, and forms that cutting endings does not find."""

from __future__ import annotations

_COMMON = """
a about above after again ain all also am an and any are aren as at be because been before being below between
both but by can couldn could d did didn do does doesn doing don down during each few for from further get got
had hadn has hasn have haven having he hello her here hers herself hey hi him himself his how i if in into is
isn it its itself just ll m ma me might mightn more most must mustn my myself needn no nor not now o of off oh
on only or other our ours ourselves out over own re really s same shall shan she should shouldn so some such t
than that the their theirs them themselves then there these they this those through to too under until up ve
very was wasn we were weren what when where which while who whom whose why will with won would wouldn y yeah yes
you your yours yourself yourselves
"""
COMMON = frozenset(_COMMON.split())
"""Words that say nothing about a text. ``may`` is none: it is a month."""

_FORMS = """
beat: beaten
become: became
begin: began begun
bend: bent
bind: bound
bite: bit bitten
blow: blew blown
break: broke broken
breed: bred
bring: brought
build: built
buy: bought
catch: caught
child: children
choose: chose chosen
come: came
creep: crept
deal: dealt
dig: dug
draw: drew drawn
dream: dreamt
drink: drank drunk
drive: drove driven
eat: ate eaten
fall: fell fallen
feed: fed
feel: felt
fight: fought
find: found
fly: flew flown
foot: feet
forget: forgot forgotten
forgive: forgave forgiven
freeze: froze frozen
give: gave given
go: goes went gone
grow: grew grown
hang: hung
hear: heard
hide: hid hidden
hold: held
keep: kept
knife: knives
know: knew known
lead: led
learn: learnt
leave: left
lend: lent
lose: lost
make: made
man: men
mean: meant
meet: met
mouse: mice
pay: paid
person: people
ride: rode ridden
ring: rang rung
rise: risen
run: ran
say: said
see: saw seen
seek: sought
sell: sold
send: sent
shake: shook shaken
shoot: shot
sing: sang sung
sink: sank sunk
sit: sat
sleep: slept
slide: slid
speak: spoke spoken
spend: spent
stand: stood
steal: stole stolen
stick: stuck
strike: struck
sweep: swept
swim: swam swum
swing: swung
take: took taken
teach: taught
tear: tore torn
tell: told
think: thought
throw: threw thrown
tooth: teeth
understand: understood
wake: woke woken
wear: wore worn
wife: wives
win: won
woman: women
write: wrote written
"""
BASE_OF = {
    form: base
    for base, _, forms in (line.partition(":") for line in _FORMS.strip().splitlines())
    for form in forms.split()
}
"""The base of each irregular form: ``went`` is found as ``go``."""
