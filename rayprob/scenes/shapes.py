"""What each of COCO's 80 labels looks like in a drawn scene: a shape of filled parts, a colour, a trim colour and a texture.

A shape is one line of parts, `paint kind numbers`, drawn in order. `paint` is `body` (the label's colour and texture), `trim`,
a colour of PALETTE, or `hole`, which cuts out. Numbers are percent of the half extent, x to the right and y downwards:
`poly` x y ..., `blob` the same with rounded corners, `box` left top right bottom, `disc` x y radius_x [radius_y],
`bar` x y x y width.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from rayprob.registry import choose

Points = NDArray[np.float32]

PALETTE = {
    "red": (214, 40, 40), "orange": (247, 127, 0), "yellow": (250, 205, 40), "lime": (150, 205, 50),
    "green": (45, 140, 60), "teal": (0, 150, 145), "cyan": (70, 200, 230), "sky": (170, 215, 240), "blue": (35, 90, 200),
    "navy": (30, 45, 100), "violet": (125, 60, 180), "magenta": (215, 50, 150), "pink": (250, 165, 190),
    "brown": (125, 75, 40), "tan": (210, 165, 110), "cream": (245, 232, 200), "skin": (236, 188, 150),
    "white": (245, 245, 242), "silver": (190, 196, 202), "grey": (125, 130, 138), "dark": (40, 40, 48),
    "maroon": (120, 25, 45), "olive": (120, 120, 40), "mint": (160, 230, 195),
}  # fmt: skip

LOOKS = """\
person: person blue navy plain; bicycle: bicycle teal dark plain; car: car red silver plain
motorcycle: motorcycle violet silver plain; airplane: airplane white blue bands; bus: bus yellow dark plain
train: train green cream bands; truck: truck cyan navy checks; boat: boat maroon orange plain
traffic light: traffic_light olive dark plain; fire hydrant: hydrant red yellow plain; stop sign: stop_sign red white plain
parking meter: meter navy orange plain; bench: bench brown tan stripes; bird: bird cyan yellow waves
cat: cat orange brown stripes; dog: dog tan brown patches; horse: horse brown dark plain; sheep: sheep white cream fluff
cow: cow white dark patches; elephant: elephant grey silver plain; bear: bear brown maroon fluff
zebra: horse white dark stripes; giraffe: giraffe yellow brown patches; backpack: backpack lime navy plain
umbrella: umbrella magenta yellow wedges; handbag: handbag magenta maroon checks; tie: tie navy red stripes
suitcase: suitcase teal dark grid; frisbee: frisbee lime white rings; skis: skis magenta white plain
snowboard: board violet yellow dots; sports ball: ball white dark dots; kite: kite orange violet wedges
baseball bat: bat tan brown plain; baseball glove: glove brown tan grid; skateboard: skateboard dark lime plain
surfboard: surfboard cyan white bands; tennis racket: racket yellow red grid; bottle: bottle green white plain
wine glass: goblet maroon sky plain; cup: cup orange white dots; fork: fork silver grey plain
knife: knife silver brown plain; spoon: spoon silver tan plain; bowl: bowl mint blue bands
banana: banana yellow brown plain; apple: fruit red brown plain; sandwich: sandwich cream green plain
orange: fruit orange yellow fluff; broccoli: broccoli green lime fluff; carrot: carrot orange green bands
hot dog: hot_dog tan red plain; pizza: pizza yellow red dots; donut: donut pink white dots; cake: cake cream magenta waves
chair: chair brown orange grid; couch: couch violet pink checks; potted plant: plant green maroon plain
bed: bed pink blue checks; dining table: table tan brown bands; toilet: toilet white silver plain; tv: tv dark cyan plain
laptop: laptop silver blue plain; mouse: mouse grey red plain; remote: remote dark red plain
keyboard: keyboard dark silver grid; cell phone: phone dark pink plain; microwave: microwave silver dark bands
oven: oven grey orange plain; toaster: toaster teal silver plain; sink: sink silver cyan plain
refrigerator: fridge white teal plain; book: book blue cream plain; clock: clock cream dark plain
vase: vase blue white waves; scissors: scissors red silver plain; teddy bear: teddy tan maroon fluff
hair drier: drier magenta dark plain; toothbrush: toothbrush mint white plain"""

SHAPES = """\
person: skin bar -34 -28 -58 30 17 | skin bar 34 -28 58 30 17 | trim poly -30 25 0 25 -4 98 -30 98 |
  trim poly 0 25 30 25 30 98 4 98 | body blob -46 -42 46 -42 34 36 -34 36 | skin disc 0 -70 26 29 |
  brown poly -27 -70 -20 -98 20 -98 27 -70 12 -82 -12 -82
bicycle: trim disc -56 30 44 | hole disc -56 30 32 | trim disc 56 30 44 | hole disc 56 30 32 | body bar -56 30 -22 -36 11 |
  body bar -22 -30 42 -30 11 | body bar 42 -30 0 30 11 | body bar 0 30 -56 30 11 | body bar 38 -55 56 30 11 |
  trim bar -40 -42 -6 -42 13 | trim bar 22 -58 50 -58 11 | trim disc 0 30 12
car: body blob -100 30 -100 -12 -62 -18 -38 -62 34 -62 62 -16 100 -10 100 30 | sky poly -52 -18 -32 -50 -4 -50 -4 -18 |
  sky poly 4 -18 4 -50 28 -50 48 -18 | dark disc -55 28 25 | dark disc 55 28 25 | trim disc -55 28 12 | trim disc 55 28 12 |
  yellow disc 90 2 9
motorcycle: dark disc -60 35 38 | dark disc 60 35 38 | trim disc -60 35 18 | trim disc 60 35 18 | dark bar 34 -60 60 35 11 |
  body blob -95 -22 -40 -18 -5 -45 50 -40 40 25 -30 45 -60 0 | dark blob -70 -38 0 -30 0 -12 -70 -18 |
  dark bar 16 -64 44 -62 11 | trim bar -70 44 0 44 12
airplane: trim poly -5 -4 28 -4 -30 -78 -52 -78 | body blob -100 0 -88 -22 60 -22 104 2 60 24 -88 18 |
  trim poly -5 6 28 6 -30 82 -54 82 | trim poly -98 0 -70 -4 -84 -54 -100 -54 | sky poly 62 -12 86 -6 80 2 62 0 |
  dark disc 40 -6 5 | dark disc 20 -6 5 | dark disc 0 -6 5
bus: body box -100 -58 100 44 | sky box -90 -46 -52 -8 | sky box -44 -46 -6 -8 | sky box 2 -46 40 -8 |
  sky box 50 -46 94 14 | trim box -100 12 46 22 | dark disc -55 44 20 | dark disc 55 44 20 | silver disc -55 44 9 |
  silver disc 55 44 9
train: body blob -104 -52 58 -56 90 -20 104 42 -104 42 | dark box -90 -40 -60 -8 | dark box -48 -40 -18 -8 |
  dark box -6 -40 24 -8 | dark poly 40 -40 60 -40 80 -8 40 -8 | trim box -98 8 94 18 | dark box -98 42 98 52 |
  grey disc -75 52 14 | grey disc -35 52 14 | grey disc 35 52 14 | grey disc 75 52 14
truck: body box -100 -66 28 34 | trim poly 34 -36 74 -36 98 0 98 34 34 34 | sky poly 44 -26 68 -26 84 0 44 0 |
  grey box -100 30 98 40 | dark disc -66 42 22 | dark disc -16 42 22 | dark disc 66 42 22 | silver disc -66 42 9 |
  silver disc -16 42 9 | silver disc 66 42 9
boat: brown bar 0 40 0 -98 8 | trim poly 8 -94 78 22 8 22 | white poly -8 -72 -64 22 -8 22 |
  body poly -100 34 100 34 64 80 -64 80 | white bar -78 50 78 50 8
traffic_light: trim box -10 50 10 100 | body box -38 -100 38 56 | red disc 0 -68 25 | yellow disc 0 -20 25 |
  lime disc 0 28 25
hydrant: trim box -58 76 58 98 | body disc 0 -58 38 36 | body box -38 -60 38 78 | body disc -46 -8 22 22 |
  body disc 46 -8 22 22 | trim disc 0 -8 19 | trim box -46 -62 46 -46 | trim box -12 -100 12 -88
stop_sign: grey bar 0 20 0 100 12 | trim poly -30 -100 30 -100 70 -60 70 0 30 40 -30 40 -70 0 -70 -60 |
  body poly -26 -90 26 -90 61 -56 61 -4 26 30 -26 30 -61 -4 -61 -56 | trim box -48 -44 -28 -16 | trim box -20 -44 -2 -16 |
  trim box 6 -44 24 -16 | trim box 32 -44 48 -16
meter: grey bar 0 0 0 100 16 | body blob -56 -20 -50 -100 50 -100 56 -20 24 30 -24 30 | sky disc 0 -60 32 20 |
  trim bar 0 -60 16 -72 7 | trim disc 0 -14 14
bench: dark bar -76 -50 -84 76 12 | dark bar 76 -50 84 76 12 | body box -98 -56 98 -34 | body box -98 -24 98 -4 |
  body box -100 14 100 36
bird: trim poly 62 -44 100 -32 62 -22 | trim bar -8 36 -12 84 7 | trim bar 14 36 16 84 7 |
  body poly -40 20 -100 -12 -96 44 | body disc -4 8 52 38 | body disc 44 -36 32 | navy blob -50 -8 20 -16 6 36 -44 30 |
  dark disc 54 -42 7
cat: body bar 40 70 84 30 17 | body bar 80 36 76 -10 15 | body blob -52 100 -46 10 46 10 58 100 |
  body poly -48 -46 -44 -100 -8 -70 | body poly 48 -46 44 -100 8 -70 | body disc 0 -42 50 42 | lime disc -20 -48 10 12 |
  lime disc 20 -48 10 12 | dark disc -20 -48 4 11 | dark disc 20 -48 4 11 | pink poly -8 -30 8 -30 0 -20
dog: body bar 36 60 88 10 17 | body blob -52 100 -44 0 44 0 56 100 | white blob -24 100 -22 20 22 20 24 100 |
  body disc 0 -44 46 46 | trim blob -72 -74 -34 -84 -34 -20 -62 -6 | trim blob 72 -74 34 -84 34 -20 62 -6 |
  white disc 0 -24 26 22 | dark disc 0 -34 12 9 | dark disc -19 -54 7 | dark disc 19 -54 7
horse: trim bar -86 -22 -98 40 13 | body box -70 0 -52 96 | body box -40 0 -24 96 | body box 22 0 38 96 |
  body box 50 0 66 96 | body blob -84 -36 0 -26 74 -38 74 32 0 32 -84 34 | body poly 34 -20 46 -98 72 -92 74 -10 |
  body blob 44 -96 70 -100 100 -58 88 -40 50 -60 | trim poly 30 -22 40 -98 52 -100 44 -22 | dark disc 68 -76 5
sheep: dark box -56 30 -40 88 | dark box -26 30 -10 88 | dark box 16 30 32 88 | dark box 44 30 60 88 |
  body disc -50 -10 40 36 | body disc -10 -28 44 38 | body disc 36 -18 40 38 | body disc -10 14 64 34 |
  body disc 58 -44 24 20 | dark blob 52 -54 84 -60 96 -22 66 -8 | white disc 78 -42 6
cow: body box -74 10 -54 90 | body box -44 10 -26 90 | body box 22 10 40 90 | body box 50 10 68 90 |
  body blob -92 -50 70 -54 84 34 -92 34 | pink disc -16 38 20 13 | cream bar 58 -60 46 -92 9 | cream bar 88 -60 98 -90 9 |
  body blob 52 -66 96 -66 92 -4 58 -4 | pink disc 76 -8 20 14 | dark disc 66 -42 6 | dark disc 86 -42 6
elephant: body box -74 10 -46 92 | body box -34 10 -10 92 | body box 14 10 40 92 |
  body blob -100 -30 -60 -84 30 -80 56 -20 50 44 -90 44 | body bar 76 -30 88 60 22 | body disc 60 -36 38 36 |
  trim disc 34 -36 28 40 | white bar 66 2 96 16 8 | dark disc 72 -44 6
bear: body box -78 20 -48 88 | body box -36 20 -8 88 | body box 22 20 52 88 |
  body blob -98 -6 -60 -66 30 -70 70 -20 62 48 -88 48 | body disc 36 -80 13 | body disc 74 -80 13 | body disc 56 -52 38 34 |
  tan disc 72 -40 21 15 | dark disc 84 -44 8 6 | dark disc 52 -62 6
giraffe: body box -70 24 -56 100 | body box -42 24 -30 100 | body box 4 24 16 100 | body box 26 24 40 100 |
  body blob -80 2 40 -8 48 44 -78 40 | body poly 12 10 46 -90 66 -84 46 20 | trim bar 52 -84 48 -106 6 |
  body blob 42 -98 66 -98 98 -66 86 -52 48 -72 | dark disc 66 -82 5
backpack: trim bar -18 -84 -18 -98 8 | trim bar 18 -84 18 -98 8 | trim bar -22 -96 22 -96 8 |
  trim blob -84 20 -62 0 -50 90 -84 90 | trim blob 84 20 62 0 50 90 84 90 |
  body blob -62 104 -70 -60 -40 -94 40 -94 70 -60 62 104 | trim blob -44 84 -44 18 44 18 44 84 | silver bar -34 34 34 34 6 |
  trim bar -62 -24 62 -24 9
umbrella: brown bar 0 -80 0 84 8 | brown bar 0 88 24 88 10 | brown bar 24 92 24 70 8 |
  body poly -98 6 -88 -34 -56 -70 0 -86 56 -70 88 -34 98 6 66 -8 33 8 0 -8 -33 8 -66 -8 | trim bar 0 -80 0 -98 7
handbag: trim disc 0 -34 48 58 | hole disc 0 -34 34 45 | body blob -78 -30 78 -30 104 92 -104 92 |
  trim poly -74 -26 74 -26 50 14 -50 14 | yellow box -12 2 12 24
tie: body poly -24 -100 24 -100 14 -66 -14 -66 | body poly -14 -64 14 -64 36 64 0 100 -36 64
suitcase: dark bar -26 -62 -26 -96 10 | dark bar 26 -62 26 -96 10 | dark bar -30 -94 30 -94 12 | dark disc -48 90 12 |
  dark disc 48 90 12 | body blob -78 -66 78 -66 78 92 -78 92 | trim box -48 -62 -36 84 | trim box 36 -62 48 84
frisbee: trim disc 0 6 98 50 | body disc 0 0 98 48 | trim disc 0 -4 58 26 | body disc 0 -4 48 20
skis: body bar -60 100 -10 -84 15 | body bar 10 100 60 -84 15 | body bar -10 -84 8 -100 14 | body bar 60 -84 78 -100 14 |
  trim box -50 10 -26 26 | trim box 22 10 46 26
board: body blob -34 -112 34 -112 40 0 34 112 -34 112 -40 0 | dark box -34 -42 34 -26 | dark box -34 26 34 42
ball: body disc 0 0 96 | trim poly 0 -32 30 -10 19 26 -19 26 -30 -10 | trim poly 0 -96 24 -74 -24 -74 |
  trim poly 90 -26 62 -16 70 36 | trim poly -90 -26 -62 -16 -70 36 | trim poly 50 80 16 66 0 94
kite: trim bar 0 40 -22 74 5 | trim bar -22 74 12 98 5 | trim poly -34 66 -10 82 -30 90 | trim poly 4 88 26 100 2 104 |
  body poly 0 -100 62 -26 0 56 -62 -26 | dark bar 0 -100 0 56 4 | dark bar -62 -26 62 -26 4
bat: body blob -14 -106 20 -104 26 -60 10 40 -10 40 -24 -60 | trim box -9 34 9 92 | trim disc 0 94 15 9
glove: body blob -70 100 -84 0 -44 -4 -36 60 | body disc -58 -10 18 34 | body disc -24 -58 18 40 | body disc 12 -62 18 42 |
  body disc 46 -48 18 40 | body blob -62 104 -60 -30 64 -34 76 30 40 104 | trim disc 0 26 32 38
skateboard: grey disc -54 44 19 | grey disc 54 44 19 | trim box -72 22 -36 34 | trim box 36 22 72 34 |
  body blob -108 -34 -76 4 76 4 108 -34 96 26 70 28 -70 28 -96 26 | trim bar -60 14 60 14 7
surfboard: body blob 0 -118 40 -50 40 40 16 104 -16 104 -40 40 -40 -50 | red bar 0 -92 0 98 6 | trim poly 0 64 10 96 -10 96
racket: body disc 0 -42 58 57 | trim disc 0 -42 58 57 | body disc 0 -42 46 45 | trim poly -24 8 24 8 8 42 -8 42 |
  dark bar 0 34 0 100 16
bottle: trim box -15 -100 15 -84 | body blob -16 -88 16 -88 16 -44 48 -20 44 108 -44 108 -48 -20 -16 -44 |
  trim box -42 10 42 62 | red disc 0 36 17
goblet: trim bar 0 10 0 90 10 | trim disc 0 92 42 10 | sky blob -50 -104 50 -104 54 -30 0 34 -54 -30 |
  body blob -48 -50 48 -50 46 -26 0 30 -46 -26
cup: trim disc 66 0 36 40 | hole disc 66 0 21 25 | body poly -70 -72 70 -72 54 84 -54 84 | white disc 0 -72 70 17 |
  brown disc 0 -70 58 11
fork: body bar 0 -20 0 100 17 | body blob -38 -50 38 -50 30 6 -30 6 | body bar -30 -40 -30 -100 12 |
  body bar -10 -40 -10 -100 12 | body bar 10 -40 10 -100 12 | body bar 30 -40 30 -100 12
knife: trim blob -16 10 16 10 18 108 -18 108 | body poly -16 12 -16 -100 4 -92 18 -60 18 12 | dark disc 0 40 4 |
  dark disc 0 70 4
spoon: body bar 0 -20 0 100 15 | body disc 0 -60 36 42 | trim disc 0 -60 23 28
bowl: body blob -100 -30 100 -30 70 64 36 76 -36 76 -70 64 | cream disc 0 -30 97 24 | trim disc 0 -28 80 16 |
  body box -36 66 36 80
banana: body blob -96 -46 -78 -58 -40 20 40 34 92 -22 104 -6 66 74 -30 82 -84 30 | trim disc -86 -50 10 | trim disc 94 -14 9
fruit: trim bar 0 -60 10 -98 10 | green blob 8 -74 34 -104 72 -84 44 -64 | body disc -26 10 66 74 | body disc 26 10 66 74 |
  white disc -44 -22 12 17
sandwich: tan poly -100 -24 0 -88 100 -24 | tan poly -100 -24 100 -24 100 -4 -100 -4 |
  trim blob -108 -6 108 -6 92 18 40 8 0 20 -50 8 -92 18 | red box -92 12 92 26 | body box -98 26 98 54 |
  tan box -100 50 100 62
broccoli: trim poly -20 0 20 0 30 96 -30 96 | trim poly -14 30 -48 -10 -34 -20 0 20 | trim poly 14 30 48 -10 34 -20 0 20 |
  body disc -46 -24 44 40 | body disc 46 -24 44 40 | body disc 0 -56 50 44 | body disc 0 -16 44 30
carrot: trim poly 0 -46 -34 -100 -16 -60 -6 -104 0 -60 12 -104 14 -60 36 -98 |
  body blob -36 -48 36 -48 30 0 4 112 -4 112 -30 0
hot_dog: body blob -104 -30 104 -30 104 50 -104 50 | trim blob -108 -26 108 -26 108 18 -108 18 |
  yellow bar -80 -2 -45 -12 9 | yellow bar -45 -12 -10 2 9 | yellow bar -10 2 25 -12 9 | yellow bar 25 -12 80 0 9
pizza: brown poly -90 -84 0 -98 90 -84 84 -56 0 -70 -84 -56 | body poly -82 -62 0 -76 82 -62 0 100 | trim disc -34 -40 17 |
  trim disc 30 -44 17 | trim disc 0 4 17 | green disc 4 -30 7 | green disc -12 34 6
donut: tan disc 0 4 97 | body disc 0 0 88 | hole disc 0 0 34 | cyan bar -60 -30 -44 -40 9 | yellow bar 40 -50 56 -40 9 |
  lime bar -50 40 -40 54 9 | violet bar 40 46 58 40 9 | red bar 0 -72 14 -62 9
cake: trim box -6 -84 6 -52 | orange disc 0 -90 7 11 | body box -54 -54 54 0 |
  trim poly -54 -54 54 -54 54 -34 36 -24 18 -34 0 -24 -18 -34 -36 -24 -54 -34 | body box -90 0 90 74 |
  trim poly -90 0 90 0 90 22 60 36 30 22 0 36 -30 22 -60 36 -90 22 | silver box -100 74 100 86
chair: trim bar -48 20 -56 98 12 | trim bar 52 20 60 98 12 | trim bar 28 20 30 80 10 |
  body blob -56 -104 20 -104 16 26 -50 26 | body poly -56 14 46 14 62 38 -56 38
couch: dark box -84 60 -66 76 | dark box 66 60 84 76 | body blob -84 -66 84 -66 84 40 -84 40 |
  trim blob -80 -10 0 -10 0 34 -80 34 | trim blob 80 -10 0 -10 0 34 80 34 | body blob -104 -20 -72 -24 -70 66 -104 66 |
  body blob 104 -20 72 -24 70 66 104 66 | body box -90 32 90 62
plant: body blob 0 20 -90 -10 -100 -50 -40 -40 | body blob 0 20 90 -10 100 -50 40 -40 |
  body blob 0 20 -60 -60 -44 -104 -4 -50 | body blob 0 20 60 -60 44 -104 4 -50 |
  lime blob -14 20 -12 -70 0 -106 12 -70 14 20 | trim poly -50 16 50 16 36 98 -36 98 | trim box -58 10 58 28
bed: brown box -100 -60 -84 70 | brown box 88 -10 100 70 | white box -86 0 92 34 | white blob -84 -34 -30 -34 -24 4 -84 4 |
  body blob -40 -18 92 -14 96 50 -36 50 | brown box -86 34 90 50
table: trim bar -74 -10 -80 90 14 | trim bar 74 -10 80 90 14 | trim bar -30 -10 -32 66 10 | trim bar 30 -10 32 66 10 |
  body poly -72 -50 72 -50 100 -8 -100 -8 | trim box -100 -10 100 6
toilet: body box -80 -98 -34 10 | trim box -86 -100 -28 -84 | body poly -60 10 40 10 20 96 -50 96 |
  body blob -66 -10 84 -10 76 40 20 56 -60 46 | trim disc 14 -2 66 14 | cyan disc 16 0 50 8
tv: body bar -30 70 30 70 12 | body bar 0 50 0 70 16 | body box -100 -64 100 54 | trim box -90 -54 90 44 |
  white poly -70 -54 -40 -54 -80 44 -90 44 -90 10
laptop: body box -72 -78 72 34 | trim box -62 -68 62 24 | white box -50 -56 -6 -46 | white box -50 -38 20 -30 |
  body poly -76 36 76 36 100 70 -100 70 | dark poly -66 42 66 42 76 56 -76 56
mouse: body blob -58 -60 0 -116 58 -60 62 60 0 112 -62 60 | dark bar 0 -84 0 -10 6 | trim disc 0 -46 10 18 |
  dark bar -54 -12 54 -12 5
remote: body blob -38 -108 38 -108 38 108 -38 108 | trim disc 0 -72 15 | silver disc -18 -34 9 | silver disc 18 -34 9 |
  silver disc -18 -6 9 | silver disc 18 -6 9 | silver disc -18 22 9 | silver disc 18 22 9 | cyan box -24 46 24 62
keyboard: body blob -106 -42 106 -42 106 42 -106 42 | trim box -88 -26 -70 -10 | trim box -60 -26 -42 -10 |
  trim box -32 -26 -14 -10 | trim box -4 -26 14 -10 | trim box 24 -26 42 -10 | trim box 52 -26 88 -10 |
  trim box -88 0 -60 14 | trim box -50 0 50 14 | trim box 60 0 88 14
phone: body blob -56 -110 56 -110 56 110 -56 110 | trim box -44 -76 44 70 | yellow disc -18 -36 15 | cyan disc 20 -36 15 |
  lime disc -18 14 15 | white disc 20 14 15 | silver disc 0 86 9
microwave: body box -100 -58 100 60 | trim box -88 -46 40 46 | sky poly -76 -34 -20 -34 -50 34 -76 34 |
  lime box 52 -44 90 -24 | trim disc 62 -4 8 | trim disc 82 -4 8 | trim disc 62 20 8 | trim disc 82 20 8
oven: body box -78 -96 78 96 | dark disc -54 -76 11 | dark disc -20 -76 11 | dark disc 20 -76 11 | dark disc 54 -76 11 |
  dark box -60 -34 60 66 | trim box -48 -20 48 50 | yellow box -48 30 48 50 | silver bar -56 -46 56 -46 9
toaster: tan blob -50 -90 -8 -90 -8 0 -50 0 | tan blob 50 -90 8 -90 8 0 50 0 | body blob -96 74 -100 -46 100 -46 96 74 |
  trim box -84 66 84 80 | trim bar 78 -20 78 20 12 | dark disc -50 20 14
sink: trim bar 0 -20 0 -80 13 | trim bar 0 -80 40 -80 13 | trim bar 38 -84 38 -56 13 |
  body poly -100 -22 100 -22 86 66 -86 66 | white disc 0 -10 78 16 | trim disc 0 -6 60 10 | dark disc 0 -6 9 3
fridge: body box -58 -100 58 94 | trim box -58 -32 58 -26 | trim bar -42 -78 -42 -46 9 | trim bar -42 -12 -42 40 9 |
  dark box -50 94 -30 100 | dark box 30 94 50 100 | red disc 24 -66 9 | yellow disc 4 0 9
book: body poly -100 -56 0 -44 100 -56 100 62 0 74 -100 62 | trim poly -90 -66 -4 -48 -4 62 -90 48 |
  trim poly 90 -66 4 -48 4 62 90 48 | grey bar -76 -36 -18 -24 5 | grey bar -76 -12 -18 0 5 | grey bar -76 12 -18 24 5 |
  grey bar 76 -36 18 -24 5 | grey bar 76 -12 18 0 5
clock: trim disc 0 0 98 | body disc 0 0 82 | trim bar 0 4 0 -60 9 | trim bar 0 0 44 24 10 | trim disc 0 0 9 |
  red disc 0 -70 7 | red disc 0 70 7 | red disc 70 0 7 | red disc -70 0 7
vase: pink disc -30 -84 17 | red disc 2 -90 17 | yellow disc 32 -82 17 | green bar 0 -80 0 -30 8 |
  body blob -34 -52 34 -52 20 -24 62 20 40 104 -40 104 -62 20 -20 -24 | trim box -34 -46 34 -36
scissors: trim poly -8 24 28 -96 42 -86 10 30 | trim poly 8 24 -28 -96 -42 -86 -10 30 | body disc -34 64 31 34 |
  hole disc -34 64 16 19 | body disc 34 64 31 34 | hole disc 34 64 16 19 | dark disc 0 16 7
teddy: body disc -50 -80 22 | body disc 50 -80 22 | body blob -92 10 -60 -6 -30 30 -60 50 |
  body blob 92 10 60 -6 30 30 60 50 | body disc -40 82 27 20 | body disc 40 82 27 20 | body disc 0 34 50 54 |
  cream disc 0 40 29 34 | body disc 0 -48 54 46 | cream disc 0 -32 25 19 | dark disc 0 -40 10 7 | dark disc -22 -56 7 |
  dark disc 22 -56 7 | trim poly -28 -4 0 6 28 -4 28 16 0 6 -28 16
drier: trim poly -28 10 10 10 26 98 -14 98 | body disc -30 -30 56 54 | body poly -20 -72 84 -56 84 -4 -20 12 |
  dark box 82 -60 100 0 | silver disc -34 -30 28 | dark disc -34 -30 16
toothbrush: body bar -96 40 60 -10 17 | body bar 55 -9 100 -22 17 | trim poly 48 -26 96 -40 90 -72 42 -58 |
  cyan poly 60 -32 74 -36 68 -66 56 -62"""


@dataclass(frozen=True)
class Part:
    """One filled polygon of a shape; points_P2 in half extents, x to the right and y downwards."""

    paint: str
    points_P2: Points


@dataclass(frozen=True)
class Appearance:
    """The fixed appearance of one label."""

    shape: str
    colour: str
    trim: str
    texture: str


def parse_looks(text: str) -> dict[str, Appearance]:
    """Return the appearance of each label in `label: shape colour trim texture; ...`."""
    entries = (entry.split(":") for entry in text.replace("\n", ";").split(";"))
    return {name.strip(): Appearance(*words.split()) for name, words in entries}


@cache
def shape_parts(shape: str) -> tuple[Part, ...]:
    """Return the parts of a shape in drawing order."""
    return tuple(parse_part(part) for part in choose(_SHAPE_TEXTS, shape, "shape").split("|"))


def parse_part(text: str) -> Part:
    """Return the part that `paint kind numbers` describes."""
    paint, kind, *numbers = text.split()
    values = np.array([int(number) / 100 for number in numbers], dtype=np.float32)
    return Part(paint, choose(KINDS, kind, "kind of part")(values))


def _poly(values: Points) -> Points:
    return values.reshape(-1, 2)


def _blob(values: Points) -> Points:
    points_P2 = _poly(values)
    for cut in (0.16, 0.25, 0.25):  # Chaikin's corner cutting, with a small first cut so that boxes stay boxes
        ahead_P2 = np.roll(points_P2, -1, axis=0)
        points_P2 = np.stack([points_P2 + cut * (ahead_P2 - points_P2), ahead_P2 - cut * (ahead_P2 - points_P2)], axis=1)
        points_P2 = points_P2.reshape(-1, 2)
    return points_P2.astype(np.float32)


def _box(values: Points) -> Points:
    left, top, right, bottom = values
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]], dtype=np.float32)


def _disc(values: Points) -> Points:
    x, y, radius_x, radius_y = values if len(values) == 4 else (*values, values[2])
    angle_P = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    return np.stack([x + radius_x * np.cos(angle_P), y + radius_y * np.sin(angle_P)], axis=1).astype(np.float32)


def _bar(values: Points) -> Points:
    start_2, end_2, width = values[:2], values[2:4], values[4]
    along_2 = (end_2 - start_2) / np.linalg.norm(end_2 - start_2)
    side_2 = np.array([-along_2[1], along_2[0]], dtype=np.float32) * width / 2
    return np.stack([start_2 + side_2, end_2 + side_2, end_2 - side_2, start_2 - side_2])


KINDS = {"poly": _poly, "blob": _blob, "box": _box, "disc": _disc, "bar": _bar}
_SHAPE_TEXTS = dict(line.split(":") for line in SHAPES.replace("\n  ", " ").splitlines())
LOOK_OF_LABEL = parse_looks(LOOKS)
