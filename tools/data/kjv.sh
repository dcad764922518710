#!/bin/bash
# Writes the King James Bible as training text: tools/data/kjv.sh FOLDER
#
# The text comes from Debian's packages bible-kjv and bible-kjv-text (public domain): one file a book in canonical order
# (01-genesis.txt ... 66-revelation.txt), one verse a line, without the reference in front ("Ge1:1 "). FOLDER appears
# whole, 66 books and 31102 verses, or not at all. A FOLDER that is already there is left alone.
set -euo pipefail

readonly verses=31102
readonly books='
Ge genesis          Exo exodus          Lev leviticus       Num numbers         Deu deuteronomy     Josh joshua
Jdgs judges         Ruth ruth           1Sm 1-samuel        2Sm 2-samuel        1Ki 1-kings         2Ki 2-kings
1Chr 1-chronicles   2Chr 2-chronicles   Ezra ezra           Neh nehemiah        Est esther          Job job
Psa psalms          Prv proverbs        Eccl ecclesiastes   SSol song-of-songs  Isa isaiah          Jer jeremiah
Lam lamentations    Eze ezekiel         Dan daniel          Hos hosea           Joel joel           Amos amos
Obad obadiah        Jonah jonah         Mic micah           Nahum nahum         Hab habakkuk        Zep zephaniah
Hag haggai          Zec zechariah       Mal malachi         Mat matthew         Mark mark           Luke luke
John john           Acts acts           Rom romans          1Cor 1-corinthians  2Cor 2-corinthians  Gal galatians
Eph ephesians       Phi philippians     Col colossians      1Th 1-thessalonians 2Th 2-thessalonians 1Tim 1-timothy
2Tim 2-timothy      Titus titus         Phmn philemon       Heb hebrews         Jas james           1Pet 1-peter
2Pet 2-peter        1Jn 1-john          2Jn 2-john          3Jn 3-john          Jude jude           Rev revelation
'

if [[ $# -ne 1 ]]; then
  echo "usage: $0 FOLDER" >&2
  exit 2
fi
readonly folder=${1%/}
[[ -d $folder ]] && exit 0

mkdir -p "$(dirname "$folder")"
temporary=$(mktemp -d "$(dirname "$folder")/.$(basename "$folder").XXXXXX")
trap 'rm -rf "$temporary"' EXIT

# awk sends each verse to its book's file; an unknown book, a book out of order or an empty verse ends it with a 1.
bible -f 'ge1:1-rev22:21' </dev/null | awk -v folder="$temporary" -v verses="$verses" -v books="$books" '
  BEGIN {
    count = split(books, words)
    for (i = 1; i < count; i += 2) path[words[i]] = sprintf("%s/%02d-%s.txt", folder, (i + 1) / 2, words[i + 1])
  }
  function fail(why) { print "kjv.sh: line " NR ": " why > "/dev/stderr"; failed = 1; exit 1 }
  {
    if (!match($0, /^[0-9]?[A-Za-z]+[0-9]+:[0-9]+ /)) fail("not a verse: " $0)
    text = substr($0, RLENGTH + 1)
    book = substr($0, 1, RLENGTH)
    sub(/[0-9]+:[0-9]+ $/, "", book)
    if (!(book in path)) fail("unknown book: " book)
    if (text == "") fail("empty verse")
    if (path[book] != file) {
      if (path[book] < file) fail("book out of order: " book)
      if (file != "") close(file)
      file = path[book]
    }
    print text > file
  }
  END {
    if (failed) exit 1
    if (NR != verses) { print "kjv.sh: " NR " verses instead of " verses > "/dev/stderr"; exit 1 }
  }'

if [[ $(find "$temporary" -name '*.txt' | wc -l) -ne 66 ]]; then
  echo "kjv.sh: not all 66 books were written" >&2
  exit 1
fi
chmod 755 "$temporary"
# Whoever comes second finds the folder there and gives way.
mv -T "$temporary" "$folder" 2>/dev/null || [[ -d $folder ]]
