-- Commits changes of one namespace, all of them or none, or only asks whether the store is still the one we knew.
--
-- KEYS  1 generation   2 changes (a stream)   3 index (a hash: id -> rest of the record's key)   4 our fence
--       5 history (a stream)   6 where it was cut
-- ARGV  1 mode: check | commit | refill | tidy   2 the generation we know, or ""   3 the one to give it if need be
--       4 the last change we know   5 server   6 number of this attempt   7 length of the stream
--       8 prefix of all keys   9 number of fields, and then their names
--       (commit, refill:) number of events; if any: most to keep, oldest to keep, number of fields, and their names,
--       and per event: milliseconds, the fields' values
--       then per change: put | fill | remove, milliseconds to live or 0, id, rest of the key, the fields' values
--       (tidy: ids alone)
-- Answer  {"ok" or, with a generation that is new, "new"; generation; last change; "told" or, when the events could
--          not be written, "untold"} | {"lost"} | {"late"}

local mode, expected, proposed, floor = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local server, attempt, keep, prefix, count = ARGV[5], tonumber(ARGV[6]), ARGV[7], ARGV[8], tonumber(ARGV[9])
local first = 10 + count

-- Everything that could fail is read before anything is written: Redis does not undo a script that failed halfway.
local generation = redis.call('GET', KEYS[1])
local length = redis.call('HLEN', KEYS[3])
local last = 0
if redis.call('EXISTS', KEYS[2]) == 1 then
  local info = redis.call('XINFO', 'STREAM', KEYS[2])
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then last = tonumber(string.match(info[i + 1], '^%d+')) end
  end
end

-- A restored backup has our generation, but not our last changes.
local behind = last < floor
if mode ~= 'refill' and expected ~= '' and (generation ~= expected or behind) then return { 'lost' } end
if mode == 'check' then return { 'ok', generation or '', string.format('%.0f', last) } end

if mode == 'tidy' then
  for i = first, #ARGV do
    local rest = redis.call('HGET', KEYS[3], ARGV[i])
    if rest and redis.call('EXISTS', prefix .. rest) == 0 then redis.call('HDEL', KEYS[3], ARGV[i]) end
  end
  return { 'ok', generation or '', string.format('%.0f', last) }
end

local told = tonumber(ARGV[first] or 0)
local fields = told > 0 and tonumber(ARGV[first + 3]) or 0
local changes = told > 0 and first + 4 + fields + told * (fields + 1) or first + 1

-- An attempt that we gave up may still lie in a socket. It must not be carried out after a newer one.
if told > 0 or ARGV[changes] then
  if attempt <= tonumber(redis.call('GET', KEYS[4]) or 0) then return { 'late' } end
  redis.call('SET', KEYS[4], ARGV[6], 'EX', 3600)
end

local done = 'ok'
if not generation or (mode == 'refill' and generation == expected and behind) then
  done, generation = 'new', proposed
  redis.call('SET', KEYS[1], generation)
end

local at = changes
while ARGV[at] do
  local op, ttl, id, rest = ARGV[at], tonumber(ARGV[at + 1]), ARGV[at + 2], ARGV[at + 3]
  local old = redis.call('HGET', KEYS[3], id)
  -- "fill" leaves alone what another server has written since the store was lost.
  if op ~= 'fill' or not old or redis.call('EXISTS', prefix .. old) == 0 then
    local record = {}
    for i = 1, count do
      record[2 * i - 1] = ARGV[9 + i]
      record[2 * i] = ARGV[at + 3 + i]
    end
    if old then redis.call('DEL', prefix .. old) end
    if op == 'remove' then
      redis.call('HDEL', KEYS[3], id)
    else
      op = 'put'
      redis.call('DEL', prefix .. rest)
      redis.call('HSET', prefix .. rest, unpack(record))
      if ttl > 0 then redis.call('PEXPIRE', prefix .. rest, ttl) end
      redis.call('HSET', KEYS[3], id, rest)
    end
    last = last + 1
    redis.call('XADD', KEYS[2], 'MAXLEN', '~', keep, string.format('%.0f-0', last),
      'by', server, 'generation', generation, 'op', op, unpack(record))
  end
  at = at + 4 + count
end

-- The history comes last, and whatever is wrong with it, the changes stand.
local function tell()
  local milli, number = 0, -1
  if redis.call('EXISTS', KEYS[5]) == 1 then
    local info = redis.pcall('XINFO', 'STREAM', KEYS[5])
    if info.err then return false end
    for i = 1, #info, 2 do
      if info[i] == 'last-generated-id' then
        milli, number = string.match(info[i + 1], '^(%d+)-(%d+)$')
        milli, number = tonumber(milli), tonumber(number)
      end
    end
  end
  local at = first + 4 + fields
  for _ = 1, told do
    -- Ids only grow, also when a clock goes back.
    local now = tonumber(ARGV[at])
    if now > milli then milli, number = now, 0 else number = number + 1 end
    local event = {}
    for i = 1, fields do
      event[2 * i - 1] = ARGV[first + 3 + i]
      event[2 * i] = ARGV[at + i]
    end
    local added = redis.pcall('XADD', KEYS[5], string.format('%.0f-%.0f', milli, number), unpack(event))
    if type(added) == 'table' and added.err then return false end
    at = at + 1 + fields
  end
  local many = redis.pcall('XTRIM', KEYS[5], 'MAXLEN', '~', ARGV[first + 1])
  local old = redis.pcall('XTRIM', KEYS[5], 'MINID', '~', ARGV[first + 2])
  many, old = type(many) == 'number' and many or 0, type(old) == 'number' and old or 0
  if many + old > 0 then
    local oldest = redis.call('XRANGE', KEYS[5], '-', '+', 'COUNT', 1)[1]
    redis.call('SET', KEYS[6], (oldest and oldest[1] or '0-0') .. (many > 0 and ' many' or ' old'))
  end
  return true
end
local written = told == 0 or tell()
return { done, generation, string.format('%.0f', last), written and 'told' or 'untold' }
