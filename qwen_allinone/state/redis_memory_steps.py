"""What is done to memories in Redis or Valkey, each in one step: scripts in Lua, with the keys they know.

All keys share one hash tag, so that a cluster keeps them together: a note becomes statements in one step, however many
keys that takes. Numbers with a fraction are never written by Lua, which would round them: they come as text and stand
as scores.
"""

from __future__ import annotations

from qwen_allinone.state.memories import AROUND_BYTES

# Of everybody. `expiries_of_all`: each statement by when it expires. `note_texts`, `due`, `tries`: notes by number, and
# by when they may be taken. `models`: `<model>\\n<statement>` of each statement that holds. `erasing`: see erase.
SHARED = ("expiries_of_all", "note_texts", "due", "tries", "note_number", "models", "erasing")
# Of an owner: the bytes of all his users.
OWNERS = ("share",)
# Of a user. `rows`: what never changes of a statement, by id. `moods`, `vectors` by id; `forms`: ids by form; `ages`,
# `expiries`, `replaced`: ids by when; `current`: of each topic the id that holds. `notes`: by number.
USERS = ("rows", "moods", "vectors", "forms", "ages", "expiries", "replaced", "current", "notes", "number")
PARTS = (*SHARED, *OWNERS, *USERS)

# So many of one user's are dropped in a step at most, should their bound be lowered: Redis does nothing else meanwhile.
_MOST_DROPPED = 100

# ARGV[1]: the user as `<owner>:<user>:`, ARGV[2]: whether his owner has a share, ARGV[3]: now.
_TOOLS = f"""
local {", ".join(PARTS)} = unpack(KEYS)
local who, has_share, now = ARGV[1], ARGV[2] == '1', ARGV[3]

local function grow(bytes)
  if has_share and redis.call('INCRBY', share, bytes) <= 0 then redis.call('DEL', share) end
end
local function in_models(id)
  local vector = redis.call('HGET', vectors, id) or '\\n'
  local model = string.match(vector, '^[^\\n]*')
  return model .. '\\n' .. who .. id, #vector - #model - 1
end
local function drop(id)
  local row = redis.call('HGET', rows, id)
  if not row then return 0 end
  local text, _, topic, form = unpack(cjson.decode(row))
  local place, vector_bytes = in_models(id)
  redis.call('ZREM', models, place)
  redis.call('ZREM', expiries_of_all, who .. id)
  if redis.call('HGET', current, topic) == id then redis.call('HDEL', current, topic) end
  redis.call('HDEL', forms, form)
  for _, part in ipairs({{rows, moods, vectors}}) do redis.call('HDEL', part, id) end
  for _, part in ipairs({{ages, expiries, replaced}}) do redis.call('ZREM', part, id) end
  grow(-(#text + {AROUND_BYTES} + vector_bytes))
  return 1
end
local function drop_note(note)
  local document = redis.call('HGET', note_texts, note)
  if not document then return 0 end
  redis.call('HDEL', note_texts, note)
  redis.call('HDEL', tries, note)
  redis.call('ZREM', due, note)
  redis.call('ZREM', notes, note)
  grow(-(#cjson.decode(document).text + {AROUND_BYTES}))
  return 1
end
local function told(id)
  return {{id, redis.call('HGET', rows, id), redis.call('HGET', moods, id) or '', redis.call('ZSCORE', ages, id),
           redis.call('ZSCORE', expiries, id), redis.call('ZSCORE', replaced, id) or ''}}
end
"""

# What `keep` of a store's does: the statement that was true at `at`.
_KEEPING = f"""
local function make_room(most)
  for _ = 1, {_MOST_DROPPED} do
    if redis.call('ZCARD', ages) <= most then return end
    local first, at = redis.call('ZRANGE', ages, 0, 0)[1], nil
    for _, id in ipairs(redis.call('ZRANGE', replaced, 0, -1)) do
      local when = tonumber(redis.call('ZSCORE', ages, id))
      if not at or when < at or (when == at and id < first) then first, at = id, when end
    end
    drop(first)
  end
end
local function keep(id, row, mood, at, expires)
  local text, _, topic, form = unpack(cjson.decode(row))
  for _, old in ipairs(redis.call('ZRANGEBYSCORE', expiries, '-inf', now)) do drop(old) end
  local known, since = redis.call('HGET', forms, form), nil
  local rival = topic ~= '' and redis.call('HGET', current, topic)
  if rival and rival ~= known then
    local when = redis.call('ZSCORE', ages, rival)
    if tonumber(when) > tonumber(at) then
      since = when
    else
      redis.call('ZADD', replaced, at, rival)
      redis.call('ZREM', models, (in_models(rival)))
      redis.call('HDEL', current, topic)
    end
  end
  if not known then
    known = string.format('%08x', redis.call('INCR', number)) .. id
    redis.call('HSET', rows, known, row)
    redis.call('HSET', forms, form, known)
    grow(#text + {AROUND_BYTES})
  elseif tonumber(at) < tonumber(redis.call('ZSCORE', ages, known)) then
    return known
  else
    _, _, topic = unpack(cjson.decode(redis.call('HGET', rows, known)))
  end
  redis.call('HDEL', moods, known)
  if mood ~= '' then redis.call('HSET', moods, known, mood) end
  redis.call('ZADD', ages, at, known)
  redis.call('ZADD', expiries, expires, known)
  redis.call('ZADD', expiries_of_all, expires, who .. known)
  if since then
    redis.call('ZADD', replaced, since, known)
    redis.call('ZREM', models, (in_models(known)))
  else
    redis.call('ZREM', replaced, known)
    redis.call('ZADD', models, 0, (in_models(known)))
    if topic ~= '' then redis.call('HSET', current, topic, known) end
  end
  return known
end
"""

# ARGV[4]: how many a user may have, [5]: the bytes of an owner; then what `keep` takes.
ADD = f"""{_TOOLS}{_KEEPING}
if has_share and tonumber(redis.call('GET', share) or 0) >= tonumber(ARGV[5]) then return false end
local kept = told(keep(unpack(ARGV, 6, 10)))
make_room(tonumber(ARGV[4]))
return kept
"""
# ARGV[4]: how many a user may have, [5]: the note; then for each statement what `keep` takes.
SETTLE = f"""{_TOOLS}{_KEEPING}
if drop_note(ARGV[5]) == 0 then return 0 end
for first = 6, #ARGV, 5 do
  keep(unpack(ARGV, first, first + 4))
  make_room(tonumber(ARGV[4]))
end
return 1
"""
ALL = f"""{_TOOLS}
return {{redis.call('HGETALL', rows), redis.call('HGETALL', moods),
  redis.call('ZREVRANGE', ages, 0, -1, 'WITHSCORES'), redis.call('ZRANGE', expiries, 0, -1, 'WITHSCORES'),
  redis.call('ZRANGE', replaced, 0, -1, 'WITHSCORES')}}
"""
# Ids, the newest first; of those that hold no more; of those that have not expired; all rows and vectors.
HELD = f"""{_TOOLS}
return {{redis.call('ZREVRANGE', ages, 0, -1), redis.call('ZRANGE', replaced, 0, -1),
  redis.call('ZRANGEBYSCORE', expiries, '(' .. now, '+inf'), redis.call('HGETALL', rows),
  redis.call('HGETALL', vectors)}}
"""
# ARGV[4]: the id.
DELETE = f"""{_TOOLS}
if drop(ARGV[4]) == 0 then return 0 end
redis.call('HINCRBY', erasing, 'owed', 1)
return 1
"""
FORGET = f"""{_TOOLS}
local written, count = 0, 0
for _, note in ipairs(redis.call('ZRANGE', notes, 0, -1)) do written = written + drop_note(note) end
for _, id in ipairs(redis.call('HKEYS', rows)) do count = count + drop(id) end
redis.call('DEL', number)
if written + count > 0 then redis.call('HINCRBY', erasing, 'owed', 1) end
return count
"""
# ARGV[4]: how many a user may have, [5]: the note as a document.
NOTE = f"""{_TOOLS}
local note = string.format('%016d', redis.call('INCR', note_number))
redis.call('HSET', note_texts, note, ARGV[5])
redis.call('ZADD', due, now, note)
redis.call('ZADD', notes, 0, note)
grow(#cjson.decode(ARGV[5]).text + {AROUND_BYTES})
local over = math.min(redis.call('ZCARD', notes) - tonumber(ARGV[4]), {_MOST_DROPPED})
if over > 0 then
  for _, old in ipairs(redis.call('ZRANGE', notes, 0, over - 1)) do drop_note(old) end
end
return 1
"""
# ARGV[4]: until when it is held.
TAKE = f"""{_TOOLS}
local note = redis.call('ZRANGEBYSCORE', due, '-inf', now, 'LIMIT', 0, 1)[1]
if not note then return false end
redis.call('ZADD', due, ARGV[4], note)
return {{note, redis.call('HGET', note_texts, note), redis.call('HINCRBY', tries, note, 1)}}
"""
# ARGV[4]: the note, [5]: when it may be taken, [6]: its tries.
PUT_BACK = f"""{_TOOLS}
if redis.call('HEXISTS', note_texts, ARGV[4]) == 0 then return 0 end
redis.call('ZADD', due, ARGV[5], ARGV[4])
return redis.call('HSET', tries, ARGV[4], ARGV[6])
"""
# ARGV[4]: a model, [5]: how many. Statements as `<owner>:<user>:<id>`.
UNREAD = f"""{_TOOLS}
local found = redis.call('ZRANGEBYLEX', models, '-', '(' .. ARGV[4] .. '\\n', 'LIMIT', 0, ARGV[5])
local after = redis.call('ZRANGEBYLEX', models, '[' .. ARGV[4] .. '\\n\\255', '+', 'LIMIT', 0, ARGV[5])
for _, place in ipairs(after) do table.insert(found, place) end
for number, place in ipairs(found) do found[number] = string.match(place, '\\n(.*)$') end
return found
"""
# ARGV[4]: the id. What `all` says of it; false if it is gone.
ONE = f"""{_TOOLS}
return redis.call('HEXISTS', rows, ARGV[4]) == 1 and told(ARGV[4])
"""
# ARGV[4]: the id, [5]: its text, [6]: `<model>\\n<vector>`.
PUT_VECTOR = f"""{_TOOLS}
local row = redis.call('HGET', rows, ARGV[4])
if not row or cjson.decode(row)[1] ~= ARGV[5] then return 0 end
local before, bytes = in_models(ARGV[4])
redis.call('HSET', vectors, ARGV[4], ARGV[6])
local after, more = in_models(ARGV[4])
if redis.call('ZREM', models, before) == 1 then redis.call('ZADD', models, 0, after) end
grow(more - bytes)
return 1
"""
# ARGV[4]: how many.
EXPIRED = f"""{_TOOLS}
return redis.call('ZRANGEBYSCORE', expiries_of_all, '-inf', now, 'LIMIT', 0, ARGV[4])
"""
# ARGV[4]: the id.
SWEEP = f"""{_TOOLS}
local when = redis.call('ZSCORE', expiries, ARGV[4])
if when and tonumber(when) > tonumber(now) then return 0 end
redis.call('ZREM', expiries_of_all, who .. ARGV[4])
return drop(ARGV[4])
"""
# ARGV[4]: what `erasing` says, [5]: what it shall say; nothing is done if it says another thing by now.
ADVANCE = f"""{_TOOLS}
local said, becomes = cjson.decode(ARGV[4]), cjson.decode(ARGV[5])
for field, value in pairs(said) do
  if (redis.call('HGET', erasing, field) or '0') ~= value then return 0 end
end
for field, value in pairs(becomes) do redis.call('HSET', erasing, field, value) end
return 1
"""
