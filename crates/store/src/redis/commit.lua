-- Commits changes of one namespace, all of them or none, or only asks whether the store is still the one we knew.
--
-- KEYS  1 generation   2 changes (a stream)   3 index (a hash: id -> rest of the record's key)   4 our fence
--       5 history (a stream)   6 where it was cut   7 tombstones (a sorted set: id, by version)
-- ARGV  1 mode: check | commit | refill | tidy   2 the generation we know, or ""   3 the one to give it if need be
--       4 the last change we know   5 server   6 number of this attempt   7 length of the stream
--       8 prefix of all keys   9 number of fields, and then their names
--       then whose they are, a letter for each: a asked, o observed, b both; the first version whose tombstone is kept;
--       how many tombstones are; the latest version that is believed
--       (commit, refill:) number of events; if any: most to keep, oldest to keep, number of fields, and their names,
--       and per event: milliseconds, the fields' values
--       then per change: ask | see | remove | forget | fill | restore | bury, milliseconds to live or 0, id, rest of the
--       key, the version it was planned on, its version, its incarnation, the fields' values
--       (tidy: ids alone)
-- Answer  {"ok" or, with a generation that is new, "new"; generation; last change; "told" or, when the events could
--          not be written, "untold"; and the ids of those who are not forgotten after all} | {"lost"} | {"late"} | {"conflict", and of each record that stands in the way: id,
--          version of its tombstone or 0, the fields' values, all empty when it is gone}

local mode, expected, proposed, floor = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local server, attempt, keep, prefix, count = ARGV[5], tonumber(ARGV[6]), ARGV[7], ARGV[8], tonumber(ARGV[9])
local first = 14 + count
local owners, buried_since, most_buried = ARGV[10 + count], ARGV[11 + count], tonumber(ARGV[12 + count])
local latest = tonumber(ARGV[13 + count])

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

-- The rules are those of `Change::ruling`. They are applied to all changes before the first is carried out.
local standing = {}
local function stands(id)
  if standing[id] then return standing[id] end
  local rest = redis.call('HGET', KEYS[3], id)
  local gone = redis.pcall('ZSCORE', KEYS[7], id)
  local now = { rest = rest, gone = type(gone) == 'string' and tonumber(gone) or 0 }
  -- A version that nobody can have given guards nothing.
  if now.gone > latest then now.gone = 0 end
  if rest and redis.call('EXISTS', prefix .. rest) == 1 then
    local known = redis.pcall('HMGET', prefix .. rest, 'asked', 'incarnation', 'registered_at', 'draining', 'observed')
    -- A release before this script wrote no version. What is no hash is nobody's, and is overwritten.
    if not known.err then
      now.version, now.incarnation = tonumber(known[1] or 0) or 0, known[2] or ''
      now.registered_at, now.draining, now.evicted = known[3], known[4], known[5] == 'evicted'
    end
    if now.version and now.version > 2 * latest then now.version = nil end
  end
  -- As it stands before this batch.
  now.found, now.buried = now.version ~= nil, now.gone
  standing[id] = now
  return now
end

local width = 7 + count
-- Where each field is among those of a change.
local place = {}
for i = 1, count do place[ARGV[9 + i]] = i end
local function given(at, field) return place[field] and ARGV[at + 6 + place[field]] end

-- Whether what was asked for is the same in the store and in a change: two servers may be asked in one millisecond.
local function says_the_same(at, rest)
  for field, i in pairs(place) do
    if string.sub(owners, i, i) == 'a' and (redis.call('HGET', prefix .. rest, field) or '') ~= ARGV[at + 6 + i] then
      return false
    end
  end
  return true
end

local function rule(op, now, planned, version, at)
  local same_life = now.version and now.incarnation == ARGV[at + 6]
  if now.version and now.incarnation == '' then same_life = now.registered_at == given(at, 'registered_at') end
  if op == 'ask' then
    if now.version then
      if now.version > planned and not (now.version == version and now.found and says_the_same(at, now.rest)) then
        return 'conflict'
      end
      if not same_life then return 'all' end
      -- What does not change what everybody sees leaves that alone.
      return now.draining ~= given(at, 'draining') and 'asked' or 'updated'
    end
    return (now.gone >= version or planned > 0 and now.gone > planned) and 'conflict' or 'all'
  elseif op == 'see' then
    -- It answered at the very end of its probation, and the record expired first.
    if not now.version then
      return given(at, 'observed') ~= 'evicted' and now.gone < version and 'all' or 'leave'
    end
    return same_life and 'observed' or 'leave'
  elseif op == 'remove' then
    return now.version and now.version > planned and 'conflict' or 'bury'
  elseif op == 'forget' then
    return now.version and (now.version > planned or not same_life or not now.evicted) and 'leave' or 'bury'
  elseif op == 'fill' then
    -- What another server has written since the store was lost is left alone, unless it is older.
    return (now.gone >= version or now.version and now.version >= version) and 'leave' or 'all'
  elseif op == 'restore' then
    return (now.gone >= version or now.version and now.version > version) and 'leave' or 'all'
  end
  return now.version and now.version > version and 'leave' or 'bury'
end

local rulings, in_the_way, left = {}, {}, {}
for at = changes, #ARGV, width do
  local op, id, planned, version = ARGV[at], ARGV[at + 2], tonumber(ARGV[at + 4]), tonumber(ARGV[at + 5])
  local now = stands(id)
  local ruling = rule(op, now, planned, version, at)
  -- Nobody need hear once more of what is gone.
  if ruling == 'bury' and not now.version and (op == 'bury' or now.gone >= version) then ruling = 'remember' end
  if ruling == 'conflict' then
    in_the_way[#in_the_way + 1] = id
  elseif ruling == 'leave' and op == 'forget' then
    left[#left + 1] = id
  elseif ruling == 'bury' or ruling == 'remember' then
    now.version, now.gone = nil, math.max(now.gone, version)
  elseif ruling == 'all' then
    now.version, now.incarnation, now.draining = version, ARGV[at + 6], given(at, 'draining')
    now.evicted, now.registered_at = given(at, 'observed') == 'evicted', given(at, 'registered_at')
  elseif ruling == 'asked' or ruling == 'updated' then
    now.version, now.incarnation, now.draining = version, ARGV[at + 6], given(at, 'draining')
  elseif ruling == 'observed' then
    now.evicted = given(at, 'observed') == 'evicted'
  end
  rulings[at] = ruling
end
if #in_the_way > 0 then
  local answer, names = { 'conflict' }, {}
  for i = 1, count do names[i] = ARGV[9 + i] end
  for _, id in ipairs(in_the_way) do
    local now = standing[id]
    local known = now.found and redis.pcall('HMGET', prefix .. now.rest, unpack(names)) or {}
    answer[#answer + 1] = id
    answer[#answer + 1] = string.format('%.0f', now.buried)
    for i = 1, count do answer[#answer + 1] = known[i] or '' end
  end
  return answer
end

local done = 'ok'
if not generation or (mode == 'refill' and generation == expected and behind) then
  done, generation = 'new', proposed
  redis.call('SET', KEYS[1], generation)
end

-- The fields of a part, with their names, as HSET takes them.
local function part(at, whose)
  local fields = {}
  for i = 1, count do
    local owner = string.sub(owners, i, i)
    if whose == 'all' or owner == 'b' and whose ~= 'u' or owner == whose or owner == 'a' and whose == 'u' then
      fields[#fields + 1] = ARGV[9 + i]
      fields[#fields + 1] = ARGV[at + 6 + i]
    end
  end
  return fields
end

-- All fields of a record as they are now.
local function whole(key)
  local names, fields = {}, {}
  for i = 1, count do names[i] = ARGV[9 + i] end
  local values = redis.call('HMGET', key, unpack(names))
  for i = 1, count do
    fields[2 * i - 1] = names[i]
    fields[2 * i] = values[i] or ''
  end
  return fields
end

-- Whoever is remembered for a time of its own, or kept out, is forgotten by a server, and not by Redis.
local function is_forgotten_by_servers(key)
  local own = redis.call('HMGET', key, 'forget_after', 'blocked')
  return own[1] and own[1] ~= '' or own[2] and own[2] ~= ''
end

for at = changes, #ARGV, width do
  local ttl, id, rest, version = tonumber(ARGV[at + 1]), ARGV[at + 2], ARGV[at + 3], ARGV[at + 5]
  local ruling, old, op, record = rulings[at], redis.call('HGET', KEYS[3], id), 'put', nil
  if ruling == 'all' then
    if old then redis.call('DEL', prefix .. old) end
    record = part(at, 'all')
    redis.call('DEL', prefix .. rest)
    redis.call('HSET', prefix .. rest, unpack(record))
    if ttl > 0 then redis.call('PEXPIRE', prefix .. rest, ttl) end
    redis.call('HSET', KEYS[3], id, rest)
  elseif ruling == 'asked' or ruling == 'updated' then
    redis.call('HSET', prefix .. old, unpack(part(at, ruling == 'asked' and 'a' or 'u')))
    if string.match(old, '^evicted:') then
      if is_forgotten_by_servers(prefix .. old) then
        redis.call('PERSIST', prefix .. old)
      elseif ttl > 0 then
        redis.call('PEXPIRE', prefix .. old, ttl)
      end
    end
    record = whole(prefix .. old)
  elseif ruling == 'observed' then
    if old ~= rest then
      redis.call('RENAME', prefix .. old, prefix .. rest)
      redis.call('HSET', KEYS[3], id, rest)
    end
    redis.call('HSET', prefix .. rest, unpack(part(at, 'o')))
    if ttl > 0 and not is_forgotten_by_servers(prefix .. rest) then
      redis.call('PEXPIRE', prefix .. rest, ttl)
    else
      redis.call('PERSIST', prefix .. rest)
    end
    record = whole(prefix .. rest)
  elseif ruling == 'bury' or ruling == 'remember' then
    op = 'remove'
    if ruling == 'bury' then record = ARGV[at] == 'bury' and whole(prefix .. old) or part(at, 'all') end
    if old then redis.call('DEL', prefix .. old) end
    redis.call('HDEL', KEYS[3], id)
    local score = redis.pcall('ZSCORE', KEYS[7], id)
    if type(score) ~= 'string' or tonumber(score) < tonumber(version) or tonumber(score) > latest then
      redis.pcall('ZADD', KEYS[7], version, id)
    end
  end
  if record then
    last = last + 1
    if op == 'remove' then
      record[#record + 1] = 'gone'
      record[#record + 1] = version
    end
    redis.call('XADD', KEYS[2], 'MAXLEN', '~', keep, string.format('%.0f-0', last),
      'by', server, 'generation', generation, 'op', op, unpack(record))
  end
end
redis.pcall('ZREMRANGEBYSCORE', KEYS[7], '-inf', '(' .. buried_since)
redis.pcall('ZREMRANGEBYSCORE', KEYS[7], '(' .. string.format('%.0f', latest), '+inf')
redis.pcall('ZREMRANGEBYRANK', KEYS[7], 0, -most_buried - 1)

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
local answer = { done, generation, string.format('%.0f', last), written and 'told' or 'untold' }
for _, id in ipairs(left) do answer[#answer + 1] = id end
return answer
